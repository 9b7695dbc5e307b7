-- audit/usage: usage of one layer by the requests that count.
--
-- A request has a row for each of its phases in the scope.
--
-- reads   usage, numbered: requests that count, by request_id
-- binds   $run_id, $layer_id
--         $tokens: last-prompt, prompt, generated, or all (prompt and generated)
-- yields  request_number, expert_ids, num_choices [choices by expert], weight_sum [gate weight by
--         expert]
-- order   none
select request_number, expert_ids, num_choices, weight_sum
from usage
join numbered using (request_id)
where run_id = $run_id
    and layer_id = $layer_id
    and (phase = $tokens or ($tokens = 'all' and phase in ('prompt', 'generated')))
