-- jobs_queued, beside this step, begins with the same column.
drop index jobs_unfinished_by_project;
