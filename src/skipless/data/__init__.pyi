# Which images
from skipless.data.config import ImageConfig as ImageConfig
from skipless.data.images import ImageData as ImageData
from skipless.data.images import load_images as load_images
from skipless.data.images import relabelled as relabelled

# Batches of them
from skipless.data.loading.loader import (
    BatchedDataset as BatchedDataset,
)
from skipless.data.loading.loader import (
    BatchKey as BatchKey,
)
from skipless.data.loading.loader import (
    EvalLoader as EvalLoader,
)
from skipless.data.loading.loader import (
    Order as Order,
)
from skipless.data.loading.loader import (
    train_batches as train_batches,
)
from skipless.data.loading.steps import steps_per_epoch as steps_per_epoch
from skipless.data.loading.workers import count_workers as count_workers
from skipless.data.loading.workers import default_workers as default_workers
