"""What holds of Eq. 6, A.4.4 and section 4.3's stacking of images, as a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from skipless.report.condition_number import number, short

_VERDICT = {True: "yes", False: "no", None: "both singular"}


def assumptions_markdown(cases: Sequence[Mapping[str, Any]]) -> str:
    """A row a model and choice of rows.

    Args:
        cases: `AssumptionReport.as_json()` of each, with "model", "when" and "rows" before them.
    """
    lines = [
        "| model | weights | rows of J | blocks | kappa(J) | worst sub-block | Eq. 6 | rho / s_max² | rho / s_min² | "
        "tau | Eq. 37 | more images no worse |",
        "|:--|:--|:--|:--|--:|:--|:--|--:|--:|--:|:--|--:|",
    ]
    for case in cases:
        bound, worst = case["bound"], case["sub_blocks"][case["worst"]]
        cells = (
            case["model"],
            case["when"],
            f"{case['choice']['rows']}: {case['rows']}",
            bound["orientation"],
            _kappa(case["whole"]),
            f"{case['worst']}: {_kappa(worst)}",
            _VERDICT[case["eq6"]],
            short(case["coherence"]),
            "singular" if case["incoherence"] is None else short(case["incoherence"]),
            "–" if bound["balance"] is None else short(bound["balance"]),
            "void" if bound["printed"] is None else f"≤ {short(bound['printed'])}",
            _told(case["images_bounded"]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", _CAPTION, ""])


def _kappa(spectrum: Mapping[str, Any]) -> str:
    return str(number(spectrum["kappa"], spectrum["rank"], min(spectrum["shape"])))


def _told(counts: Sequence[int]) -> str:
    holds, fails, unknown = counts
    return f"{holds} of {holds + fails}" + (f", {unknown} singular" if unknown else "")


_CAPTION = (
    "kappa in float64; “≥” where the matrix is singular to that precision. Eq. 6: kappa(J) is at most the worst "
    "sub-block's. A.4.4 asks for rho → 0 and tau → 1; Eq. 37 says something only where rho / s_min² < 1. Last column: "
    "in how many sub-blocks kappa(J_l) of all images stacked is at most that of the worst image (section 4.3)."
)
