"""The only users of what Keras does not make public.

Each piece says why it is needed and on which version it was seen to work;
`tests/_keras_compat/` fails when Keras changes it.
"""

from keras_cascade._keras_compat.graphs_and_layers import Call as Call
from keras_cascade._keras_compat.graphs_and_layers import (
    compile_arguments as compile_arguments,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    forget_calls as forget_calls,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    functional_calls as functional_calls,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    global_seed as global_seed,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    has_inputs as has_inputs,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    has_own_config as has_own_config,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    is_functional as is_functional,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    is_passed_on as is_passed_on,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    keras_mask as keras_mask,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    low_rank_hidden as low_rank_hidden,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    never_train as never_train,
)
from keras_cascade._keras_compat.graphs_and_layers import run_graph as run_graph
from keras_cascade._keras_compat.graphs_and_layers import (
    save_and_load_with as save_and_load_with,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    set_global_seed as set_global_seed,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    set_keras_mask as set_keras_mask,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    set_untracked as set_untracked,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    set_variable_path as set_variable_path,
)
from keras_cascade._keras_compat.graphs_and_layers import sublayers as sublayers
from keras_cascade._keras_compat.graphs_and_layers import (
    take_resumed_epoch as take_resumed_epoch,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    trainable_kind as trainable_kind,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    without_configs as without_configs,
)
from keras_cascade._keras_compat.graphs_and_layers import (
    without_low_rank_configs as without_low_rank_configs,
)
from keras_cascade._keras_compat.optimizers import RatedUpdates as RatedUpdates
from keras_cascade._keras_compat.optimizers import built_on as built_on
from keras_cascade._keras_compat.optimizers import (
    copy_decay_exclusions as copy_decay_exclusions,
)
from keras_cascade._keras_compat.optimizers import (
    copy_optimizer as copy_optimizer,
)
from keras_cascade._keras_compat.optimizers import copy_slots as copy_slots
from keras_cascade._keras_compat.optimizers import (
    copy_with_rates as copy_with_rates,
)
from keras_cascade._keras_compat.optimizers import (
    learning_rate_source as learning_rate_source,
)
from keras_cascade._keras_compat.optimizers import (
    schedule_step as schedule_step,
)
from keras_cascade._keras_compat.optimizers import (
    serialize_optimizer as serialize_optimizer,
)
from keras_cascade._keras_compat.optimizers import (
    start_averages as start_averages,
)
from keras_cascade._keras_compat.optimizers import undecayed as undecayed
from keras_cascade._keras_compat.optimizers import (
    undecayed_names as undecayed_names,
)
from keras_cascade._keras_compat.optimizers import (
    use_variables as use_variables,
)
from keras_cascade._keras_compat.optimizers import (
    zero_accumulators as zero_accumulators,
)
