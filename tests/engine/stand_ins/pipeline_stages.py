"""A vLLM plugin that lets the eager CPU engine run pipeline stages; on PYTHONPATH in tests only.

A stage after the first keeps the tensors it receives in buffers that the warm-up run makes, and the
CPU worker leaves the warm-up out where it is eager and its cache has a fixed size (0.30 to 0.32:
``CPUWorker._should_warm_up_model``), so its first step fails. Here the buffers are made after the
model was loaded.
"""


def register():
    from vllm.distributed import get_pp_group
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    load_model = CPUModelRunner.load_model
    if hasattr(load_model, "without_buffers"):
        return

    def load_and_make_buffers(self, *args, **kwargs):
        load_model(self, *args, **kwargs)
        if not get_pp_group().is_first_rank:
            self.intermediate_tensors = self.model.make_empty_intermediate_tensors(
                self.max_num_tokens, self.model_config.dtype, self.device
            )

    load_and_make_buffers.without_buffers = load_model
    CPUModelRunner.load_model = load_and_make_buffers
