-- committee_coverage: how much of a layer's listed gate weight its committee takes.
--
-- The committee is that of the measure committee. Coverage is the members' share of the ECI that
-- the domains' lists hold, not of all gate weight. If all listed weights were equal and the members
-- always listed, it would be |C| / k: a reference that mostly restates the size, and no chance
-- level. Lift is coverage over it. Influence density is the mean share of a member over that of
-- any other expert, with the reference (E - |C|) / (k - |C|). Both are empty, for infinite, where
-- nothing is left for the others, as it may be in draws: so the inverse, 0 there, has the interval
-- and the chance. Those of the density are one over its bounds, and one over its mean is the
-- harmonic mean, as `tracer audit` has them. The null renames experts in each domain on its own:
-- domains agree by chance.
--
-- asks    How much of the routing does the committee of a layer take?
-- source  COMMITTEEAUDIT (arXiv 2601.03425 v2) Table 5 and Eq. 12; the lift is ours
-- parts   domain_eci, domain_lists, committee_members, committee_shares
-- reads   expert_usage, experts, model, scoped_requests
-- binds   $min_presence = 0.8: least share of domains that must list a candidate.
--         $rank_cutoff = 0: how deep each domain's list goes; 0 takes the run's top-k.
-- yields  layer_id, num_candidates [experts], fallback [boolean, no expert had the presence],
--         size [members], coverage [share of listed ECI],
--         coverage_equal_weight [the same if weights were equal],
--         coverage_lift [coverage over it], influence_density [member share over other's],
--         inverse_density [other's share over member's],
--         influence_density_equal_weight [density if weights were equal]
-- key     layer_id
-- values  size, coverage, coverage_lift, inverse_density
-- jumps   size, coverage, coverage_lift, inverse_density
-- null    experts
-- order   layer_id
select
    shares.layer_id,
    shares.num_candidates,
    thresholds.fallback,
    cast(shares.size as bigint) as size,
    shares.coverage,
    shares.coverage_equal_weight,
    shares.coverage_lift,
    shares.influence_density,
    shares.inverse_density,
    shares.influence_density_equal_weight
from shares
join thresholds on shares.layer_id = thresholds.layer_id
order by shares.layer_id
