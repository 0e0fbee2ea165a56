"""Contains the only code that uses what Keras does not make public.

Each function says why it is needed and on which version it was seen to work;
`tests/_keras_compat/` fails when Keras changes it.
"""

from keras_cascade._keras_compat.attributes import (  # noqa: F401
    attributes_of_keras,
    lambda_output_shape,
)
from keras_cascade._keras_compat.fitting_and_saving import (  # noqa: F401
    ask_to_overwrite,
    drop_parallel_wrapper,
    give_arrays_back,
    is_in_weights_file,
    is_writing_hdf5_model,
    keep_arrays_of_steps,
    make_view,
    never_wrap_parallel,
    weights_file_in_memory,
)
from keras_cascade._keras_compat.graphs_and_layers import (  # noqa: F401
    SHARED,
    Call,
    children,
    compile_arguments,
    forget_calls,
    functional_calls,
    global_seed,
    has_inputs,
    has_own_config,
    input_name,
    is_functional,
    is_passed_on,
    is_torch_module,
    keras_mask,
    losses_of_step,
    low_rank_hidden,
    may_be_none,
    never_train,
    own_metrics,
    producer,
    run_graph,
    save_and_load_with,
    set_global_seed,
    set_keras_mask,
    set_untracked,
    set_variable_path,
    share_objects,
    sublayers,
    take_resumed_epoch,
    trainable_kind,
    with_configs,
    with_made_layers,
    with_methods,
    without_low_rank_configs,
)
from keras_cascade._keras_compat.orders import ArrayOrder  # noqa: F401
