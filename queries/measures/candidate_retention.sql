-- candidate_retention: how much of a committee is left where tokens keep more or fewer experts.
--
-- For every budget k' from 1 to M, each token keeps its k' best candidates and the lists of domains
-- go k' deep; committees are chosen as in `committee`. Retained is the share of the committee of
-- budget k that is also in that of k'. The closed form is what experts drawn at random, as many as
-- the committee of k' has, would retain. Candidates are what `tracer capture --top-m` records;
-- their scores stand for gate weights, so the router must be a softmax without a selection bias.
-- They are taken over all experts: of a model that chooses within groups, the k best are not always
-- those chosen. Ranks depend on k' through the depth of lists, so retention beyond k mixes both
-- effects. Weights of the experts that a token keeps can be scaled to sum to 1. The default does so
-- where the run's model scales those of its k, as the model would with k' experts, and as the
-- weights of the authors' code are. "no" has the scores as they are, the softmax over all experts,
-- which the paper's equations average (Eq. 2 and 3). Hidden states are those of the run, so a model
-- that runs with k' experts may differ; the paper does not say which it did. The null renames
-- experts in each domain on its own, in all budgets alike.
--
-- asks    Does the committee stay when tokens have more experts?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) section 4.3, Figure 5
-- parts   kept_candidates, budget_committees
-- reads   candidate_usage, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $renormalise = "model" or "yes" or "no": whether the weights that a token keeps are
--         scaled to sum to 1, model: as the run's model does.
-- yields  layer_id, budget [experts a token keeps], size [experts in the committee],
--         retained [share of the committee of budget k],
--         retained_closed_form [for experts at random]
-- key     layer_id, budget
-- values  size, retained
-- jumps   size, retained
-- null    experts
-- order   layer_id, budget
select
    found.layer_id,
    found.budget,
    cast(found.size as double) as size,
    found.num_kept / cast(full_sizes.size as double) as retained,
    found.size / cast(rules.num_experts as double) as retained_closed_form
from found
join full_sizes on found.layer_id = full_sizes.layer_id
cross join rules
order by found.layer_id, found.budget
