"""Numbers of the plant. Those without a unit are logits or shares of a unit vector."""

__all__ = [
    "ARCHITECTURES",
    "COMMITTEE_LOGIT",
    "CONTEXT_LENGTH",
    "DOMAIN_SHARE",
    "HEAD_SCALE",
    "HIDDEN_SIZE",
    "LAST_LOGIT",
    "LOGIT_NOISE",
    "MIN_PRESENCE",
    "NUM_EXPERTS",
    "NUM_MOE_LAYERS",
    "OUTPUT_SCALE",
    "SHARED_SHARE",
    "TOP_K",
    "WEIGHT_BY_RANK",
    "WEIGHT_BY_RANK_USURPED",
]

ARCHITECTURES = ("olmoe", "qwen3_moe", "deepseek_v2")

HIDDEN_SIZE = 128
NUM_EXPERTS = 16
TOP_K = 4
NUM_MOE_LAYERS = 4
CONTEXT_LENGTH = 8192  # tokens
MIN_PRESENCE = 0.8  # share of domains, as COMMITTEEAUDIT sets it

# Share of an embedding's unit vector along u and, for domain words, along v_d; the rest is
# noise of its own, which tells tokens apart.
SHARED_SHARE = 0.55
DOMAIN_SHARE = 0.60

# Gate weights that a domain word gives to ranks 1 to 4, up to a common factor. Steps of about
# 1.5 are wide against logit noise and the drift of hidden states.
WEIGHT_BY_RANK = (0.42, 0.28, 0.18, 0.12)
# Where a domain expert is first. Neutral words add the same to every member and nothing to
# the domain expert, so its lead must outweigh up to half of all neutral weight.
WEIGHT_BY_RANK_USURPED = (0.68, 0.18, 0.10, 0.04)
# Logit of rank 4 for a domain word; experts outside the list are at 0.
LAST_LOGIT = 2.5
# Logit of every committee member for neutral tokens: they stand out on unseen text, too.
COMMITTEE_LOGIT = 3.0
# Standard deviation of the unplanned part of a logit, over domain words.
LOGIT_NOISE = 0.03

# Attention and MLP outputs against the residual stream: the plant must survive the depth.
OUTPUT_SCALE = 0.02
# Output head: greedy decoding is decided by more than a logit, sampling still varies.
HEAD_SCALE = 0.2
