# Which text, and how it is read
from skipless.data.text.config import TextConfig as TextConfig
from skipless.data.text.load import load_text as load_text

# Text that has been prepared
from skipless.data.text.prepare import prepare_text as prepare_text
from skipless.data.text.prepared import TextData as TextData, TextSplit as TextSplit, open_text as open_text
from skipless.data.text.tokenizer import (
    ByteTokenizer as ByteTokenizer,
    FileTokenizer as FileTokenizer,
    Tokenizer as Tokenizer,
    load_tokenizer as load_tokenizer,
)
from skipless.data.text.windows import TextWindows as TextWindows
