from skipless.data.multicrop.config import MultiCropConfig as MultiCropConfig
from skipless.data.multicrop.dataset import MultiCropImages as MultiCropImages, load_multicrop as load_multicrop
from skipless.data.multicrop.deviation import Deviation as Deviation, measure_deviation as measure_deviation
from skipless.data.multicrop.planes import normalised as normalised
from skipless.data.multicrop.preview import draw_crops as draw_crops
