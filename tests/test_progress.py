import pytest
import torch.distributed as dist

from skipless import progress
from skipless.progress import progress_bar


def test_lines_are_written_where_there_is_no_terminal(capsys, monkeypatch) -> None:
    with progress_bar("heads") as report:
        report(1, 3)
        report(3, 3)
    assert capsys.readouterr().err == "heads: 3 of 3\n"
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.0)
    with progress_bar("heads") as report:
        report(1, 3)
    assert capsys.readouterr() == ("", "heads: 1 of 3\n")


@pytest.mark.parametrize("options", [{"show": False}, {"after": 60.0}, {"lines": False}])
def test_nothing_is_written(options: dict, capsys) -> None:
    with progress_bar("heads", **options) as report:
        report(3, 3)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_bar(capsys, monkeypatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    with progress_bar("heads", lines=False) as report:
        report(2, 3)
    out, err = capsys.readouterr()
    assert out == ""
    assert "heads" in err
    assert "2/3" in err


def test_of_several_processes_only_the_first_shows_it(capsys, monkeypatch) -> None:
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    for rank, shown in ((1, ""), (0, "heads: 1 of 1\n")):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        with progress_bar("heads") as report:
            report(1, 1)
        assert capsys.readouterr().err == shown


def test_a_failure_goes_through() -> None:
    with pytest.raises(KeyError), progress_bar("heads"):
        raise KeyError("x")
