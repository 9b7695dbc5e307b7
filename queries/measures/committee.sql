-- committee: which experts of each layer stand high in the lists of almost every domain.
--
-- Experts are ranked by ECI within each domain and layer, equal ones by id; a domain's list is the
-- first k, and who is not in it has rank k + 1. Candidates are listed by at least the share
-- min_presence of domains, or, where none is, by the most (the fallback of the authors' code, which
-- the paper does not mention). Members are the candidates that no other beats: none is as good in
-- rank mean and rank variance and better in one. The null renames experts in each domain on its
-- own, which keeps every domain's concentration: presence and low ranks beyond its band are
-- agreement of domains. `tracer audit` prints the same committees.
--
-- asks    Which experts are relied on in almost every domain?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Eq. 8 to 12
-- parts   domain_eci, domain_lists, committee_members
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, expert_id, presence [share of domains], rank_mean [ranks, 1 = first],
--         rank_var [ranks squared, population variance], eci_mean [gate weight per token],
--         listed_eci_mean [the same, 0 where not listed], candidate [boolean], member [boolean]
-- key     layer_id, expert_id
-- values  presence, rank_mean, rank_var
-- jumps   presence, rank_mean, rank_var
-- null    experts
-- order   layer_id, expert_id
select
    points.layer_id,
    points.expert_id,
    points.num_listed / cast(points.num_domains as double) as presence,
    points.rank_mean,
    points.rank_var,
    points.eci_sum / points.num_domains as eci_mean,
    points.listed_sum / points.num_domains as listed_eci_mean,
    compared.beaten is not null as candidate,
    coalesce(compared.beaten, 1) = 0 as member
from points
left join compared
    on points.layer_id = compared.layer_id and points.expert_id = compared.expert_id
order by points.layer_id, points.expert_id
