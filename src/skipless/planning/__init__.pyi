# What is computed, whatever the machine
from skipless.planning.activations import Keeping as Keeping

# On what, with what taken for granted
from skipless.planning.assumptions import Assumptions as Assumptions

# How long it takes, and how much memory
from skipless.planning.estimate import Memory as Memory, Plan as Plan, Setup as Setup, Time as Time, plan as plan
from skipless.planning.flops import backward_flops as backward_flops, forward_flops as forward_flops
from skipless.planning.hardware import GPU as GPU, GPUS as GPUS, find_gpu as find_gpu
from skipless.planning.text import TextWorkload as TextWorkload, text_workload as text_workload
from skipless.planning.work import Workload as Workload, workload as workload
