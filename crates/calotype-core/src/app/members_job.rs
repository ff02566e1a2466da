//! Sharing many images with many projects at once, and answering to it: a job (spec 2.17 to 2.19, 6.2).
//!
//! What a request is made of is checked before its job is accepted. What becomes of each pair of image and project is
//! decided by the job, and shown in its results: a pair that is refused does not hold up the others, and the job ends as
//! FAIL with the code of the first one.
//!
//! # Crash consistency
//! The pairs of one image are one transaction, which writes their results too. Whoever goes on with the job begins at
//! the first image without results.

use std::collections::BTreeSet;

use crate::access::Action;
use crate::app::{Call, Keep, Service, is_visible};
use crate::codes::ImsCode;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{ImageId, JobId, ProjectId};
use crate::image::{Image, ImageStatus, Visibility};
use crate::job::{Claim, Job, JobType, MemberResult, MembersChange, MembersVerb, Release};
use crate::keys::{Authority, KeyUser};
use crate::ports::{AuditEvent, MembersStep, NewMembersJob, Trail};
use crate::query::Viewer;

/// The most pairs of image and project that one request may name. The reference has no such limit.
pub const MOST_MEMBER_PAIRS: usize = 1000;

/// How often a step is decided again because its image changed meanwhile.
const ATTEMPTS: u32 = 16;

/// What a caller asks for: of every image, every project.
#[derive(Debug, Clone)]
pub struct MembersOrder {
    /// The images.
    pub images: Vec<ImageId>,
    /// The projects.
    pub projects: Vec<ProjectId>,
    /// What becomes of them.
    pub verb: MembersVerb,
}

impl MembersVerb {
    const fn job_type(self) -> JobType {
        match self {
            Self::Add => JobType::AddImageMembers,
            Self::Remove => JobType::DeleteImageMembers,
            Self::Accept { .. } | Self::Reject => JobType::UpdateImageMembers,
        }
    }

    /// The trace name of spec 10.
    const fn trace(self) -> &'static str {
        match self {
            Self::Add => "addMember",
            Self::Remove => "deleteMember",
            Self::Accept { .. } | Self::Reject => "updateMember",
        }
    }

    /// Whether it is for the project to say, and not for the image's owner.
    const fn is_answer(self) -> bool {
        matches!(self, Self::Accept { .. } | Self::Reject)
    }
}

impl Service {
    /// Accepts a change of members, and returns its job's id. What is named twice counts once.
    ///
    /// # Errors
    /// IMG.0026; IMG.0001 where there is no image, no project, or too many pairs of them; IMG.0030 where the answer is
    /// another project's; IMG.0060. A refusal changes nothing.
    pub async fn order_members(
        &self,
        call: &Call,
        order: MembersOrder,
        keep: Keep<'_, JobId>,
    ) -> Result<JobId> {
        let allowed = self.authorize(call, Action::ImagesShare)?;
        let project = call.principal.require_project()?;
        let (images, projects) = (once_each(order.images), once_each(order.projects));
        match images.len().saturating_mul(projects.len()) {
            0 => return Err(malformed("There is no image or no project.")),
            1..=MOST_MEMBER_PAIRS => {}
            _ => {
                return Err(malformed(&format!(
                    "A request names at most {MOST_MEMBER_PAIRS} pairs of image and project."
                )));
            }
        }
        let foreign = projects.iter().any(|named| named != project);
        if order.verb.is_answer() && foreign && !allowed.in_all_projects() {
            return Err(Error::ims(ImsCode::IMG_0030));
        }
        let job = Job::accepted(
            JobId::random(self.entropy.as_ref()),
            project.clone(),
            call.principal.user.id.clone(),
            order.verb.job_type(),
            self.clock.now(),
        );
        let id = job.id.clone();
        let detail = serde_json::json!({ "images": images.len(), "members": projects.len() });
        let trail = Trail {
            event: self.event(call, order.verb.trace(), &id, detail),
            answer: keep.map(|keep| keep(&id)),
        };
        let accepted = NewMembersJob {
            job,
            change: MembersChange {
                images,
                projects,
                verb: order.verb,
                as_administrator: allowed.in_all_projects(),
                request_id: call.request_id.clone(),
            },
            concurrency: self.settings.limits.concurrent_member_jobs,
        };
        self.catalog.submit_members(&accepted, trail).await?;
        Ok(id)
    }

    /// The worker's part: goes on with the first image that has no results.
    ///
    /// # Errors
    /// That of the first pair that was refused, once all have their results.
    pub(super) async fn change_members(
        &self,
        claim: &Claim,
        change: &MembersChange,
    ) -> Result<Release> {
        let (job, attempt) = (&claim.job.id, claim.attempt);
        let unknown = match change.verb {
            MembersVerb::Add => self.unknown_projects(&change.projects).await?,
            _ => BTreeSet::new(),
        };
        let done = claim.job.results.len() / change.projects.len().max(1);
        for image in change.images.iter().skip(done) {
            match self.change_one(claim, change, *image, &unknown).await? {
                Release::Done => {}
                other => return Ok(other),
            }
        }
        let now = self.catalog.job(job).await?;
        let results = now.map(|job| job.results).unwrap_or_default();
        match results.iter().find_map(|result| result.refused) {
            Some(code) => Err(Error::ims(code)),
            None => self.catalog.finish_steps(job, attempt).await,
        }
    }

    async fn change_one(
        &self,
        claim: &Claim,
        change: &MembersChange,
        image: ImageId,
        unknown: &BTreeSet<ProjectId>,
    ) -> Result<Release> {
        let mut attempts = ATTEMPTS;
        loop {
            let step = self.step(claim, change, image, unknown).await?;
            let (job, attempt) = (&claim.job.id, claim.attempt);
            match self.catalog.change_members(job, attempt, &step).await {
                Err(error) if error.kind() == ErrorKind::Conflict && attempts > 0 => attempts -= 1,
                // The job waits until the others have had enough of the image.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    return Err(Error::unavailable(error));
                }
                outcome => return outcome,
            }
        }
    }

    /// Which of the projects there are none of here, or none that is enabled.
    async fn unknown_projects(&self, projects: &[ProjectId]) -> Result<BTreeSet<ProjectId>> {
        let mut unknown = BTreeSet::new();
        for project in projects {
            if !self.projects.is_live(project).await? {
                unknown.insert(project.clone());
            }
        }
        Ok(unknown)
    }

    /// What is to be done to an image as it is now.
    async fn step(
        &self,
        claim: &Claim,
        change: &MembersChange,
        id: ImageId,
        unknown: &BTreeSet<ProjectId>,
    ) -> Result<MembersStep> {
        let job = &claim.job;
        let viewer = Viewer {
            project: Some(job.project.clone()),
            all_projects: change.as_administrator,
            enterprise_projects: None,
        };
        let found = self.catalog.image(id, viewer.project.as_ref()).await?;
        let found = found.filter(|seen| is_visible(seen, &viewer));
        let image = found.map(|seen| seen.image);
        let mut pairs = Vec::with_capacity(change.projects.len());
        for project in &change.projects {
            let refused = match &image {
                None => Some(ImsCode::IMG_0027),
                Some(image) => {
                    let own = change.as_administrator || image.owner == job.project;
                    self.refusal(job, image, project, change.verb, own, unknown)
                        .await?
                }
            };
            pairs.push(MemberResult {
                image: id,
                project: project.clone(),
                refused,
            });
        }
        Ok(MembersStep {
            image: id,
            version: image.as_ref().map(|image| image.version),
            verb: change.verb,
            pairs,
            limit: self.member_limit(image.as_ref()),
            line: AuditEvent {
                at: self.clock.now(),
                trace: change.verb.trace().to_owned(),
                request_id: change.request_id.clone(),
                project: Some(job.project.clone()),
                user: job.user.clone(),
                resource_type: "ims".to_owned(),
                resource_id: id.to_string(),
                detail: serde_json::Value::Null,
            },
        })
    }

    /// Why a project and an image that the caller sees are refused, if they are (spec 6.2).
    async fn refusal(
        &self,
        job: &Job,
        image: &Image,
        project: &ProjectId,
        verb: MembersVerb,
        own: bool,
        unknown: &BTreeSet<ProjectId>,
    ) -> Result<Option<ImsCode>> {
        if verb.is_answer() {
            return Ok(refused_answer(image, project, verb));
        }
        if matches!(image.visibility, Visibility::Public | Visibility::Community) {
            return Ok(Some(ImsCode::IMG_0089));
        }
        if !own {
            return Ok(Some(ImsCode::IMG_0047));
        }
        if verb == MembersVerb::Remove {
            return Ok(None);
        }
        let by = KeyUser {
            project: job.project.clone(),
            user: job.user.clone(),
            authority: Authority::Job,
        };
        Ok(if image.status != ImageStatus::Active {
            Some(ImsCode::IMG_0046)
        } else if !image.may_be_shared() {
            Some(ImsCode::IMG_0135)
        } else if image.owner == *project {
            Some(ImsCode::IMG_0076)
        } else if unknown.contains(project) {
            Some(ImsCode::IMG_0108)
        } else if !self.may_receive(&by, image, project).await? {
            Some(ImsCode::IMG_0098)
        } else {
            None
        })
    }
}

/// Whether a project is a member of the image is for the catalog to say.
fn refused_answer(image: &Image, project: &ProjectId, verb: MembersVerb) -> Option<ImsCode> {
    if image.owner == *project || image.visibility != Visibility::Shared {
        return Some(ImsCode::IMG_0114);
    }
    let without_vault = verb == MembersVerb::Accept { with_vault: false };
    (image.is_whole() && without_vault).then_some(ImsCode::IMG_0184)
}

/// The same, in the same order, each once.
fn once_each<T: Ord + Clone>(list: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    list.into_iter()
        .filter(|each| seen.insert(each.clone()))
        .collect()
}

fn malformed(message: &str) -> Error {
    Error::invalid(message).with_code(ImsCode::IMG_0001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_twice_counts_once_and_the_order_stays() {
        assert_eq!(once_each(vec![3, 1, 3, 2, 1]), [3, 1, 2]);
        assert!(once_each(Vec::<u8>::new()).is_empty());
    }

    #[test]
    fn only_a_project_can_answer_and_each_verb_has_a_type_of_job() {
        let verbs = [
            (MembersVerb::Add, false, "imsAddImageMembersJob"),
            (MembersVerb::Remove, false, "imsDelImageMembersJob"),
            (MembersVerb::Reject, true, "imsUpdateImageMembersJob"),
            (
                MembersVerb::Accept { with_vault: true },
                true,
                "imsUpdateImageMembersJob",
            ),
        ];
        for (verb, answers, job_type) in verbs {
            assert_eq!(verb.is_answer(), answers, "{verb:?}");
            assert_eq!(verb.job_type().as_str(), job_type);
        }
    }
}
