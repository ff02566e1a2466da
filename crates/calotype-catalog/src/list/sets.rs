//! The sets of images that a list is made of.

use calotype_core::id::ProjectId;
use calotype_core::image::Visibility;
use calotype_core::query::{Condition, ImageQuery, Visible, WantedMembership};

/// One of the sets whose union a viewer sees.
pub(super) enum Set {
    /// Every image, of this visibility where one is given.
    Everything(Option<Visibility>),
    /// The project's own, of this visibility where one is given.
    Own(ProjectId, Option<Visibility>),
    /// Those that everybody sees: public or community.
    Shelf(Visibility),
    /// Those shared with the project.
    SharedWith(ProjectId, WantedMembership),
}

impl Set {
    /// Whether its images meet a condition, where they all do or none does.
    pub(super) fn meets(&self, condition: &Condition) -> Option<bool> {
        match (self, condition) {
            (Self::Own(project, _), Condition::Owner(owner)) => Some(owner == project),
            (
                Self::Shelf(kind) | Self::Own(_, Some(kind)) | Self::Everything(Some(kind)),
                Condition::Visibility(wanted),
            ) => Some(kind == wanted),
            (Self::SharedWith(..), Condition::Visibility(wanted)) => {
                Some(*wanted == Visibility::Shared)
            }
            _ => None,
        }
    }
}

/// The sets that are asked for. Overlaps do no harm: the union drops what comes twice.
pub(super) fn wanted_sets(query: &ImageQuery) -> Vec<Set> {
    if query.conditions.contains(&Condition::Nothing) {
        return Vec::new();
    }
    let visible = query.visible;
    let only = match visible {
        Visible::Default | Visible::All => None,
        Visible::Only(visibility) => Some(visibility),
    };
    if query.viewer.enterprise_projects.is_some() {
        // Its own, and of those what `branch` leaves: not what others share or publish.
        let own = query.viewer.project.iter();
        return narrowed(own.map(|own| Set::Own(own.clone(), only)), query);
    }
    if query.viewer.all_projects {
        return narrowed([Set::Everything(only)], query);
    }
    let mut sets = Vec::new();
    if let Some(project) = &query.viewer.project {
        match visible {
            Visible::Default | Visible::All => sets.push(Set::Own(project.clone(), None)),
            Visible::Only(kind @ (Visibility::Private | Visibility::Shared)) => {
                sets.push(Set::Own(project.clone(), Some(kind)));
            }
            Visible::Only(Visibility::Public | Visibility::Community) => {}
        }
        let shared = matches!(
            visible,
            Visible::Default | Visible::All | Visible::Only(Visibility::Shared)
        );
        if shared {
            sets.push(Set::SharedWith(project.clone(), query.membership));
        }
    }
    match visible {
        Visible::Default | Visible::Only(Visibility::Public) => {
            sets.push(Set::Shelf(Visibility::Public));
        }
        Visible::All => {
            sets.push(Set::Shelf(Visibility::Public));
            sets.push(Set::Shelf(Visibility::Community));
        }
        Visible::Only(Visibility::Community) => sets.push(Set::Shelf(Visibility::Community)),
        Visible::Only(_) => {}
    }
    narrowed(sets, query)
}

/// The sets as conditions on owner and visibility leave them, without those that no image is left of, and those within others.
fn narrowed(sets: impl IntoIterator<Item = Set>, query: &ImageQuery) -> Vec<Set> {
    let mut sets: Vec<Set> = sets.into_iter().collect();
    for condition in &query.conditions {
        sets.retain(|set| set.meets(condition) != Some(false));
        for set in &mut sets {
            *set = match (&*set, condition) {
                (Set::Shelf(shelf), Condition::Owner(owner)) => {
                    Set::Own(owner.clone(), Some(*shelf))
                }
                (Set::Everything(kind), Condition::Owner(owner)) => Set::Own(owner.clone(), *kind),
                (Set::Own(project, None), Condition::Visibility(kind)) => {
                    Set::Own(project.clone(), Some(*kind))
                }
                (Set::Everything(None), Condition::Visibility(kind)) => {
                    Set::Everything(Some(*kind))
                }
                _ => continue,
            };
        }
    }
    let mut kept: Vec<Set> = Vec::new();
    for set in sets {
        if !kept.iter().any(|other| is_within(&set, other)) {
            kept.push(set);
        }
    }
    kept
}

/// Whether one project's set is a part of another, or the same.
fn is_within(set: &Set, other: &Set) -> bool {
    match (set, other) {
        (Set::Own(project, kind), Set::Own(of, other)) => {
            project == of && (other.is_none() || kind == other)
        }
        _ => false,
    }
}
