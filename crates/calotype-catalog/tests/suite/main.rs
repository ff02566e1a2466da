//! The promises of the catalog's ports, kept on both engines: each promise is a function over a fresh
//! catalog. On SQLite each is a test; on PostgreSQL all are one test, for a server is slow to start,
//! and another behind a pooler.

#[cfg(test)]
mod blobs;
#[cfg(test)]
mod directory;
#[cfg(test)]
mod disks;
#[cfg(test)]
mod engines;
#[cfg(test)]
mod exports;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod grants;
#[cfg(test)]
mod image_tags;
#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    unreachable_pub,
    reason = "shared with the black-box tests"
)]
#[path = "../../../../tests/harness"]
mod harness {
    mod local;
    pub(crate) mod pgbouncer;
    pub(crate) mod postgres;
}
#[cfg(test)]
mod images;
#[cfg(test)]
mod imports;
#[cfg(test)]
mod jobs;
#[cfg(test)]
mod listing;
#[cfg(test)]
mod master_keys;
#[cfg(test)]
mod member_jobs;
#[cfg(test)]
mod nodes;
#[cfg(test)]
mod quotas;
#[cfg(test)]
mod races;
#[cfg(test)]
mod relocation;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod stores;
#[cfg(test)]
mod upkeep;
#[cfg(test)]
mod world;

#[cfg(test)]
use engines::Server;
#[cfg(test)]
use harness::pgbouncer::PgBouncer;

/// A promise on a database of its own. Made here and on the heap: all of them together are more than a thread's stack holds.
#[cfg(test)]
fn kept<F>(
    url: String,
    promise: impl FnOnce(world::World) -> F + 'static,
) -> std::pin::Pin<Box<dyn Future<Output = ()>>>
where
    F: Future<Output = ()> + 'static,
{
    Box::pin(async move { promise(world::World::open(&url).await).await })
}

macro_rules! promises {
    ($($module:ident :: $name:ident,)+) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let place = tempfile::tempdir().unwrap();
                let url = format!("sqlite://{}", place.path().join("catalog.db").display());
                super::$module::$name(super::world::World::open(&url).await).await;
            })+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgresql_keeps_every_promise() {
            let server = Server::start().await;
            $({
                println!(stringify!($name));
                let url = server.database(stringify!($name)).await;
                kept(url, $module::$name).await;
            })+
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn postgresql_keeps_every_promise_behind_a_pooler() {
            let server = Server::start().await;
            let pooler = PgBouncer::start(server.url());
            world::behind(pooler.port());
            $({
                println!(stringify!($name));
                let url = server.database(concat!("pooled_", stringify!($name))).await;
                kept(url, $module::$name).await;
            })+
        }
    };
}

promises! {
    images::an_image_comes_back_as_it_was_written,
    images::an_id_is_never_used_again,
    images::an_update_of_a_stale_record_is_refused_and_changes_nothing,
    images::usage_follows_the_images_and_never_passes_the_limit,
    images::an_idempotency_key_is_taken_once,
    images::members_are_counted_answered_and_removed,
    images::an_upload_makes_the_image_active_once,
    images::an_aborted_upload_leaves_a_queued_image,
    images::an_upload_whose_image_was_deleted_is_gone,
    images::the_audit_trail_is_read_backwards,
    images::enterprise_projects_are_made_and_disabled,
    blobs::a_shared_blob_goes_with_its_last_image_after_the_grace,
    blobs::what_was_read_the_longest_ago_is_scrubbed_first,
    blobs::an_expired_upload_is_ended_once,
    blobs::a_broken_catalog_is_told_from_a_sound_one,
    exports::an_image_is_exported_once_at_a_time,
    exports::an_export_holds_the_bytes_of_an_image_that_goes_and_nobody_pays,
    imports::an_import_makes_its_image_and_leaves_nothing_where_it_fails,
    imports::an_image_that_waits_gets_its_bytes_from_one_job_and_waits_again_where_it_fails,
    imports::imports_are_counted_by_themselves,
    imports::an_import_has_its_bytes_reserved_when_it_is_accepted,
    disks::a_job_with_parts_runs_with_the_first_and_ends_well_with_the_last,
    disks::a_job_fails_as_its_first_bad_part_and_the_other_images_stay,
    disks::with_a_cancelled_job_go_its_parts,
    disks::several_disks_are_accepted_within_every_limit_or_not_at_all,
    disks::what_dies_between_two_parts_leaves_a_job_that_ends,
    disks::of_two_who_end_the_last_parts_at_once_one_ends_the_job,
    disks::a_job_whose_parts_have_ended_without_it_is_seen,
    jobs::a_replica_shares_the_blob_and_takes_its_size,
    jobs::a_replication_that_breaks_a_rule_writes_nothing,
    jobs::a_failed_job_leaves_only_its_record,
    jobs::a_worker_that_lost_its_job_writes_nothing,
    jobs::a_resealed_replica_gets_a_blob_of_its_own,
    jobs::a_rewrapped_replica_shares_the_blob_under_a_wrap_of_its_own,
    jobs::a_reseal_that_failed_leaves_a_blob_to_be_collected,
    jobs::a_part_of_a_job_is_found_by_it_and_counts_with_it,
    jobs::jobs_are_limited_with_those_of_their_family,
    jobs::only_an_image_that_was_made_for_the_job_goes_with_its_failure,
    jobs::a_cancelled_job_ends_at_once_or_when_its_worker_hears_of_it,
    jobs::whether_there_is_room_is_told_as_the_submission_decides_it,
    jobs::the_deaths_of_workers_are_counted_until_one_gets_further,
    jobs::a_job_that_was_cancelled_ends_neither_well_nor_later,
    jobs::damage_is_shown_by_every_image_of_the_blob,
    jobs::picking_is_fair_between_projects,
    jobs::picks_of_several_at_once_are_as_fair,
    jobs::jobs_are_paged_newest_first,
    jobs::a_deleted_source_keeps_its_blob_until_the_replica_is_done,
    member_jobs::a_step_changes_members_and_tells_what_became_of_each,
    member_jobs::a_step_is_done_once_whoever_goes_on_with_the_job,
    member_jobs::a_private_image_is_shared_with_nobody_who_was_not_named,
    member_jobs::jobs_about_members_have_a_limit_of_their_own,
    member_jobs::a_projects_own_limit_of_members_goes_before_the_configurations,
    directory::records_come_back_and_names_are_unique,
    directory::losing_a_right_revokes_the_tokens,
    directory::a_role_on_an_enterprise_project_is_one_in_its_project_alone,
    directory::deleting_takes_what_depends_along,
    directory::a_temporary_key_goes_with_what_it_may_have_been_got_by,
    directory::a_change_writes_its_line_and_what_changes_nothing_writes_none,
    directory::a_change_whose_line_can_not_be_written_is_not_made,
    listing::each_view_shows_what_it_promises,
    listing::a_list_shows_what_others_changed_since_the_last_one,
    listing::a_page_of_many_images_is_in_order_whatever_is_known_of_them,
    listing::every_list_is_what_the_model_says,
    image_tags::images_are_found_by_the_keys_and_values_of_their_tags,
    image_tags::tags_come_sorted_byte_by_byte_and_each_once,
    master_keys::a_catalog_has_one_id,
    master_keys::one_root_key_wraps_and_what_it_does_not_wrap_any_more_is_found,
    master_keys::a_root_key_is_retired_when_nothing_is_left_under_it,
    master_keys::the_services_keys_are_written_once,
    master_keys::a_key_comes_back_as_it_was_made_and_as_it_was_changed,
    master_keys::an_alias_is_free_again_when_its_key_is_to_go,
    master_keys::a_new_version_wraps_and_the_old_ones_stay,
    master_keys::keys_are_rotated_when_they_are_due,
    grants::a_user_sees_what_it_and_its_domain_were_granted,
    grants::what_those_of_a_project_were_granted_is_told_of_each,
    grants::grants_are_counted_paged_and_removed,
    grants::tags_are_set_counted_and_removed,
    master_keys::a_key_whose_time_has_come_goes_with_all_that_is_its,
    master_keys::a_project_with_keys_is_not_deleted,
    quotas::a_shared_blob_is_paid_for_once_and_until_its_last_image_goes,
    quotas::each_image_of_a_shared_blob_is_paid_for_where_it_is_so_set,
    quotas::bytes_are_reserved_before_they_come_and_what_is_left_is_given_back,
    quotas::a_reservation_grows_by_steps_that_leave_room_for_others,
    quotas::what_was_not_reserved_is_judged_at_the_end,
    quotas::an_upload_keeps_its_reservation_until_it_has_ended_though_its_image_is_deleted,
    quotas::a_reseal_has_its_bytes_reserved_when_it_is_accepted,
    quotas::limits_of_a_projects_own_go_before_the_configurations,
    quotas::a_project_that_is_deleted_takes_limits_and_reservations_along,
    quotas::usage_is_what_the_model_says_in_whatever_order_things_happen,
    quotas::many_at_once_fill_a_project_to_the_byte_and_no_further,
    races::many_keys_at_once_stay_under_the_quota_and_share_no_alias,
    races::many_inserts_at_once_stay_under_the_limit,
    races::no_job_is_picked_twice,
    races::of_many_updates_of_one_version_one_wins,
    races::of_many_requests_under_one_key_one_is_done,
    races::images_that_share_a_blob_can_all_go_at_once,
    races::replicas_that_end_while_their_source_goes_keep_its_blob,
    races::uploads_of_one_image_begin_once,
    races::catalogs_that_open_at_once_all_come_up,
    stores::a_blob_is_where_it_was_until_its_move_ends_well,
    stores::a_copy_that_a_blob_has_left_goes_after_the_grace,
    stores::a_move_that_ends_badly_leaves_the_blob_and_its_copy_goes,
    stores::a_move_holds_its_blob_though_every_image_goes,
    stores::an_upload_goes_where_it_was_placed_and_to_no_other_store_later,
    stores::what_a_job_makes_goes_where_it_was_placed,
    schema::a_newer_schema_is_refused,
    schema::a_newer_schema_is_taken_where_it_says_that_this_version_can_work_with_it,
    upkeep::what_is_over_its_time_is_purged_and_nothing_else,
    upkeep::a_great_many_records_go_in_small_steps,
}
