-- Roles on enterprise projects, each in one project: what they permit reaches that project's images in that enterprise
-- project.
create table enterprise_assignments (
    user_id {text} not null references users (id) on delete cascade,
    project_id {text} not null references projects (id) on delete cascade,
    enterprise_project {text} not null references enterprise_projects (id),
    role_id {text} not null references roles (id),
    primary key (user_id, project_id, enterprise_project, role_id)
);
create index enterprise_assignments_by_role on enterprise_assignments (role_id);
create index enterprise_assignments_by_project on enterprise_assignments (project_id);
