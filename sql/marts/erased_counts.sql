-- One row per place and reason: how many rows match the subject; without a reason those of others
-- that mention it. Reads temp.erased_interactions and temp.erased_feedback.

select
    if(is_archived, 'archive of ', 'raw.') || 'interactions' as place,
    reason,
    count(*) as row_count
from temp.erased_interactions
group by all
union all
select
    if(is_archived, 'archive of ', 'raw.') || 'feedback' as place,
    reason,
    count(*) as row_count
from temp.erased_feedback
group by all
order by place, reason
