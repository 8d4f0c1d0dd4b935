# What is computed, whatever the machine
from skipless.planning.activations import Keeping as Keeping

# On what, with what taken for granted
from skipless.planning.assumptions import Assumptions as Assumptions

# How long it takes, and how much memory
from skipless.planning.estimate import Memory as Memory
from skipless.planning.estimate import Plan as Plan
from skipless.planning.estimate import Setup as Setup
from skipless.planning.estimate import Time as Time
from skipless.planning.estimate import plan as plan
from skipless.planning.flops import backward_flops as backward_flops
from skipless.planning.flops import forward_flops as forward_flops
from skipless.planning.hardware import GPU as GPU
from skipless.planning.hardware import GPUS as GPUS
from skipless.planning.hardware import find_gpu as find_gpu
from skipless.planning.work import Workload as Workload
from skipless.planning.work import workload as workload
