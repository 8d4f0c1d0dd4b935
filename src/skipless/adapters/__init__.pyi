from skipless.adapters.attach import sine_ as sine_
from skipless.adapters.config import SINE_LORA as SINE_LORA, SineLoraConfig as SineLoraConfig
from skipless.adapters.load import load_sine as load_sine
from skipless.adapters.quantise import quantise_ as quantise_
from skipless.adapters.report import SineLayer as SineLayer, SineReport as SineReport, sine_report as sine_report
