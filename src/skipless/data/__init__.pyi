# Which images
from skipless.data.config import ImageConfig as ImageConfig
from skipless.data.images import ImageData as ImageData, load_images as load_images, relabelled as relabelled

# Batches of them
from skipless.data.loading.loader import (
    BatchedDataset as BatchedDataset,
    BatchKey as BatchKey,
    EvalLoader as EvalLoader,
    Order as Order,
    train_batches as train_batches,
)
from skipless.data.loading.steps import steps_per_epoch as steps_per_epoch
from skipless.data.loading.workers import count_workers as count_workers, default_workers as default_workers

# Text
from skipless.data.text.config import TextConfig as TextConfig
from skipless.data.text.load import load_text as load_text
from skipless.data.text.prepared import TextData as TextData
