//! Jobs about members: their steps, and what is left of them where a worker dies.

use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::codes::ImsCode;
use calotype_core::id::{ImageId, JobId};
use calotype_core::image::{Image, MemberStatus, Visibility};
use calotype_core::job::{
    JobFailure, JobStatus, JobType, MemberResult, MembersChange, MembersVerb, Release, Work,
};
use calotype_core::ports::{
    Images as _, Jobs as _, Ledger as _, LimitChange, MembersStep, NewMembersJob, OwnLimit,
    Quotas as _, Reconcile as _,
};

use crate::world::{LEASE, PickJob as _, World, assert_kind, at_most, event, project, trail};

const ACCEPT: MembersVerb = MembersVerb::Accept { with_vault: false };

fn order(world: &World, images: &[ImageId], projects: &[&str], verb: MembersVerb) -> NewMembersJob {
    NewMembersJob {
        job: world.job(world.image("p1").id, JobType::AddImageMembers, "p1"),
        change: MembersChange {
            images: images.to_vec(),
            projects: projects.iter().map(|name| project(name)).collect(),
            verb,
            as_administrator: false,
            request_id: "req-1".to_owned(),
        },
        concurrency: 9,
    }
}

/// A job that a worker has; the result is its id.
async fn begun(world: &World, images: &[ImageId]) -> JobId {
    let order = order(world, images, &["m1", "m2"], MembersVerb::Add);
    let submitted = world.catalog.submit_members(&order, trail()).await;
    submitted.unwrap();
    let claim = world.catalog.pick_job("w1", LEASE).await.unwrap().unwrap();
    assert_eq!(claim.work, Work::ChangeMembers(order.change));
    claim.job.id
}

fn step(image: &Image, verb: MembersVerb, projects: &[&str]) -> MembersStep {
    let pairs = projects.iter().map(|name| MemberResult {
        image: image.id,
        project: project(name),
        refused: None,
    });
    MembersStep {
        image: image.id,
        version: Some(image.version),
        verb,
        pairs: pairs.collect(),
        limit: at_most(3),
        line: event("addMember"),
    }
}

async fn members(world: &World, image: &Image) -> Vec<(String, MemberStatus)> {
    let members = world.catalog.members(image.id).await.unwrap();
    let members = members.into_iter();
    members
        .map(|member| (member.project.to_string(), member.status))
        .collect()
}

fn named(members: &[(&str, MemberStatus)]) -> Vec<(String, MemberStatus)> {
    let members = members.iter();
    members
        .map(|(name, status)| ((*name).to_owned(), *status))
        .collect()
}

async fn refusals(world: &World, job: &JobId) -> Vec<(String, Option<ImsCode>)> {
    let job = world.catalog.job(job).await.unwrap().unwrap();
    let results = job.results.into_iter();
    results
        .map(|result| (result.project.to_string(), result.refused))
        .collect()
}

fn refused(results: &[(&str, Option<ImsCode>)]) -> Vec<(String, Option<ImsCode>)> {
    let results = results.iter();
    results
        .map(|(name, code)| ((*name).to_owned(), *code))
        .collect()
}

pub(crate) async fn a_step_changes_members_and_tells_what_became_of_each(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 10).await;
    let job = begun(&world, &[image.id]).await;
    let before = catalog.audit_trail(None, None, 99).await.unwrap().len();
    let mut first = step(&image, MembersVerb::Add, &["m1", "no", "m2", "m3", "m4"]);
    first.pairs[1].refused = Some(ImsCode::IMG_0108);
    let done = catalog.change_members(&job, 1, &first).await;
    assert_eq!(done.unwrap(), Release::Done);
    let pending = MemberStatus::Pending;
    let all = named(&[("m1", pending), ("m2", pending), ("m3", pending)]);
    assert_eq!(members(&world, &image).await, all);
    let told = refused(&[
        ("m1", None),
        ("no", Some(ImsCode::IMG_0108)),
        ("m2", None),
        ("m3", None),
        ("m4", Some(ImsCode::IMG_0088)),
    ]);
    assert_eq!(refusals(&world, &job).await, told);
    let shared = world.get(image.id).await;
    assert_eq!(shared.visibility, Visibility::Shared);
    assert_eq!(shared.version, image.version + 1);
    let lines = catalog.audit_trail(None, None, 99).await.unwrap();
    assert_eq!(lines.len(), before + 3, "one for each that was added");
    assert_eq!(lines[0].1.detail["member"], "m3");
    assert_eq!(lines[0].1.detail["job_id"], job.as_str());

    // What it was decided by is not so any more.
    let stale = catalog.change_members(&job, 1, &first).await;
    assert_kind(stale, ErrorKind::Conflict);
    let answer = step(&shared, ACCEPT, &["m1", "m9"]);
    catalog.change_members(&job, 1, &answer).await.unwrap();
    let answer = step(&shared, MembersVerb::Reject, &["m2"]);
    catalog.change_members(&job, 1, &answer).await.unwrap();
    let answered = named(&[
        ("m1", MemberStatus::Accepted),
        ("m2", MemberStatus::Rejected),
        ("m3", pending),
    ]);
    assert_eq!(members(&world, &image).await, answered);
    let told = refusals(&world, &job).await.split_off(5);
    let wanted = refused(&[("m1", None), ("m9", Some(ImsCode::IMG_0114)), ("m2", None)]);
    assert_eq!(told, wanted);

    // Who rejected is offered it again, who accepted has it, and neither makes a new member.
    let again = step(&shared, MembersVerb::Add, &["m1", "m2", "m3"]);
    catalog.change_members(&job, 1, &again).await.unwrap();
    let offered = named(&[
        ("m1", MemberStatus::Accepted),
        ("m2", pending),
        ("m3", pending),
    ]);
    assert_eq!(members(&world, &image).await, offered);

    let some = step(&shared, MembersVerb::Remove, &["m1", "m2", "m9"]);
    catalog.change_members(&job, 1, &some).await.unwrap();
    assert_eq!(world.get(image.id).await.visibility, Visibility::Shared);
    let rest = step(&shared, MembersVerb::Remove, &["m3"]);
    catalog.change_members(&job, 1, &rest).await.unwrap();
    let told = refusals(&world, &job).await.split_off(11);
    let wanted = refused(&[
        ("m1", None),
        ("m2", None),
        ("m9", Some(ImsCode::IMG_0113)),
        ("m3", None),
    ]);
    assert_eq!(told, wanted);
    assert_eq!(world.get(image.id).await.visibility, Visibility::Private);
    assert_eq!(catalog.finish_steps(&job, 1).await.unwrap(), Release::Done);
    assert_eq!(catalog.finish_steps(&job, 1).await.unwrap(), Release::Lost);
    let ended = catalog.job(&job).await.unwrap().unwrap();
    assert_eq!(ended.status, JobStatus::Success);
    assert_eq!(ended.results.len(), 15, "they are kept");
    let listed = catalog.list_jobs(&project("p1"), None, None, 9).await;
    assert_eq!(listed.unwrap()[0].results, [], "a list does without");
    world.assert_sound().await;
}

pub(crate) async fn a_step_is_done_once_whoever_goes_on_with_the_job(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 10).await;
    let order = order(&world, &[image.id], &["m1"], MembersVerb::Add);
    catalog.submit_members(&order, trail()).await.unwrap();
    let first = catalog.pick_job("w1", Duration::ZERO).await;
    let job = first.unwrap().unwrap().job.id;
    let add = step(&image, MembersVerb::Add, &["m1"]);
    let second = catalog.pick_job("w2", LEASE).await.unwrap().unwrap();
    assert_eq!((second.attempt, second.deaths), (2, 1));
    let late = catalog.change_members(&job, 1, &add).await;
    assert_eq!(late.unwrap(), Release::Lost);
    assert_eq!(members(&world, &image).await, []);
    let done = catalog.change_members(&job, 2, &add).await;
    assert_eq!(done.unwrap(), Release::Done);
    // It dies too, and the next one sees how far it got.
    catalog.end_leases().await.unwrap();
    let third = catalog.pick_job("w3", LEASE).await.unwrap().unwrap();
    assert_eq!(third.job.results.len(), 1);
    assert_eq!(third.deaths, 1, "since it got further");

    let failure = JobFailure {
        code: ImsCode::IMG_0014,
        reason: "The job was cancelled.".to_owned(),
    };
    let told = catalog.cancel_job(&job, None, &failure, trail()).await;
    assert_eq!(told.unwrap().unwrap().status, JobStatus::Running);
    let shared = world.get(image.id).await;
    let next = step(&shared, MembersVerb::Remove, &["m1"]);
    let cancelled = catalog.change_members(&job, 3, &next).await;
    assert_eq!(cancelled.unwrap(), Release::Cancelled);
    let finished = catalog.finish_steps(&job, 3).await;
    assert_eq!(finished.unwrap(), Release::Cancelled);
    assert!(catalog.fail_job(&job, 3, &failure).await.unwrap());
    let ended = catalog.job(&job).await.unwrap().unwrap();
    assert_eq!((ended.status, ended.results.len()), (JobStatus::Fail, 1));
    let pending = named(&[("m1", MemberStatus::Pending)]);
    assert_eq!(
        members(&world, &image).await,
        pending,
        "what was done stays"
    );
    world.assert_sound().await;
}

pub(crate) async fn a_private_image_is_shared_with_nobody_who_was_not_named(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 10).await;
    let job = begun(&world, &[image.id]).await;
    let add = step(&image, MembersVerb::Add, &["m1"]);
    catalog.change_members(&job, 1, &add).await.unwrap();
    let hidden = Image {
        visibility: Visibility::Private,
        ..world.get(image.id).await
    };
    let hidden = catalog.update_image(&hidden, trail()).await.unwrap();
    assert_eq!(members(&world, &image).await.len(), 1, "it is kept");
    let mut add = step(&hidden, MembersVerb::Add, &["m2"]);
    add.pairs[0].refused = Some(ImsCode::IMG_0098);
    catalog.change_members(&job, 1, &add).await.unwrap();
    assert_eq!(members(&world, &image).await.len(), 1, "nothing was shared");
    add.pairs[0].refused = None;
    catalog.change_members(&job, 1, &add).await.unwrap();
    let only = named(&[("m2", MemberStatus::Pending)]);
    assert_eq!(members(&world, &image).await, only);
    let shown = world.get(image.id).await.visibility;
    assert_eq!(shown, Visibility::Shared);
}

pub(crate) async fn jobs_about_members_have_a_limit_of_their_own(world: World) {
    let catalog = &world.catalog;
    let source = world.active("p1", 10).await;
    let replica = world.replica(&source, "p1");
    catalog.submit_replica(&replica, trail()).await.unwrap();
    let submit = async |concurrency| {
        let order = NewMembersJob {
            concurrency,
            ..order(&world, &[source.id], &["m1"], MembersVerb::Add)
        };
        let submitted = catalog.submit_members(&order, trail()).await;
        submitted.err().and_then(|error| error.code())
    };
    assert_eq!(submit(0).await, Some(ImsCode::IMG_0060));
    assert_eq!(submit(1).await, None);
    assert_eq!(submit(1).await, Some(ImsCode::IMG_0060));
    assert_eq!(submit(2).await, None);
    assert_eq!(catalog.unfinished_jobs().await.unwrap(), (3, 0));
    world.assert_sound().await;
}

pub(crate) async fn a_projects_own_limit_of_members_goes_before_the_configurations(world: World) {
    let catalog = &world.catalog;
    let image = world.active("p1", 10).await;
    let job = begun(&world, &[image.id]).await;
    let change = LimitChange {
        members: Some(OwnLimit::At(1)),
        ..LimitChange::default()
    };
    let (p1, line) = (project("p1"), event("setQuota"));
    catalog.set_limits(&p1, &change, &line).await.unwrap();
    let add = step(&image, MembersVerb::Add, &["m1", "m2"]);
    catalog.change_members(&job, 1, &add).await.unwrap();
    let told = refused(&[("m1", None), ("m2", Some(ImsCode::IMG_0088))]);
    assert_eq!(refusals(&world, &job).await, told);
}
