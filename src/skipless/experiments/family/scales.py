"""At which sizes the room's reports can be made, and of which models, as types."""

from typing import Literal

FamilyScale = Literal["digits", "fashion"]
AttentionKind = Literal[
    "softmax", "polynomial 1", "polynomial 2", "polynomial 3", "shaped", "V-SkipInit", "E-SPA", "U-SPA", "orthogonal"
]
AttentionRow = Literal["skip", "skipless", "skipless + init", "skipless + ours"]
FamilyRow = Literal["skip", "skip, decayed", "skipless", "skipless + init", "skipless + ours", "skipless + source"]
Method = Literal[
    "skip",
    "skip, decayed",
    "skipless",
    "skipless + init",
    "skipless + ours",
    "V-SkipInit",
    "E-SPA",
    "U-SPA",
    "shaped",
    "V-SkipInit + ours",
    "E-SPA + ours",
    "U-SPA + ours",
    "shaped + ours",
]
