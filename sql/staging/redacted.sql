-- One row per interaction that no rule objected to, as all that follows may see it: personal data
-- and secrets are placeholders. `example_id` names the redacted request, so that requests which
-- differ in nothing else are equal. Reads staging.interactions, and judgements, which curate hands
-- over, with null for what redaction did not change.

with

texts as (
    select
        interactions.interaction_id,
        interactions.workload_id,
        judgements.answer,
        coalesce(judgements.messages, interactions.messages) as messages,
        coalesce(judgements.tools, interactions.tools) as tools,
        coalesce(judgements.acceptable, interactions.acceptable) as acceptable
    from judgements
    inner join staging.interactions as interactions using (interaction_id)
    where judgements.objection is null
)

select
    interaction_id,
    messages,
    tools,
    answer,
    acceptable,
    md5(workload_id || chr(10) || messages || chr(10) || tools) as example_id
from texts
