//! Lists, against a model that filters and sorts everything in memory.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use calotype_core::ErrorKind;
use calotype_core::id::{EnterpriseProjectId, ImageId, ProjectId};
use calotype_core::image::{Image, ImageStatus, ListedImage, Member, MemberStatus, Visibility};
use calotype_core::ports::{Images as _, Reconcile as _};
use calotype_core::query::{
    Comparison, Condition, Direction, ImageQuery, SortKey, Viewer, Visible, WantedMembership,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::world::{self, DAY, World, assert_kind, at_most, project, trail};

type Members = BTreeMap<(ImageId, ProjectId), MemberStatus>;

fn viewer(name: &str) -> Viewer {
    Viewer {
        project: Some(project(name)),
        all_projects: false,
        enterprise_projects: None,
    }
}

pub(crate) fn all_of(viewer: Viewer) -> ImageQuery {
    ImageQuery {
        viewer,
        visible: Visible::Default,
        membership: WantedMembership::Is(MemberStatus::Accepted),
        conditions: Vec::new(),
        order: Vec::new(),
        marker: None,
        limit: 100,
    }
}

async fn names(world: &World, query: &ImageQuery) -> Vec<String> {
    let images = world.catalog.list_images(query).await.unwrap();
    images
        .iter()
        .map(|image| image.name.clone().unwrap_or_default())
        .collect()
}

/// Every image as a list shows it, which is as it is.
async fn everything(world: &World) -> Vec<Arc<ListedImage>> {
    let query = all_of(Viewer {
        project: None,
        enterprise_projects: None,
        all_projects: true,
    });
    let query = ImageQuery {
        visible: Visible::All,
        ..query
    };
    let listed = world.catalog.list_images(&query).await.unwrap();
    for image in &listed {
        assert_eq!(***image, world.get(image.id).await);
    }
    listed
}

pub(crate) async fn a_list_shows_what_others_changed_since_the_last_one(world: World) {
    let other = world::open(&world.url).await.unwrap();
    let [first, second] = [world.active("me", 10).await, world.active("me", 10).await];
    let mut last = everything(&world).await;
    let again = everything(&world).await;
    // What did not change is not read again.
    assert!(
        last.iter()
            .zip(&again)
            .all(|(one, two)| Arc::ptr_eq(one, two))
    );
    let mut image = first.clone();
    for step in 0..9 {
        match step {
            0 => image.name = Some("renamed".to_owned()),
            1 => drop(image.properties.insert("a".to_owned(), "1".to_owned())),
            2 => drop(image.properties.insert("a".to_owned(), "2".to_owned())),
            3 => drop(image.properties.remove("a")),
            4 => image.tags = vec!["x".to_owned()],
            5 => image.tags = vec!["y".to_owned()],
            6 => {
                image.visibility = Visibility::Shared;
                image.hidden = true;
            }
            7 => other.mark_damaged(image.blob.unwrap()).await.unwrap(),
            _ => other.clear_damage(image.blob.unwrap()).await.unwrap(),
        }
        if step < 7 {
            image = other.update_image(&image, trail()).await.unwrap();
        }
        let now = everything(&world).await;
        let shown = |images: &[Arc<ListedImage>]| -> Vec<Image> {
            images.iter().map(|image| (***image).clone()).collect()
        };
        assert_ne!(shown(&now), shown(&last), "step {step}");
        last = now;
    }
    let grace = Duration::ZERO;
    other.delete_image(&second, grace, trail()).await.unwrap();
    let now = everything(&world).await;
    assert_eq!(now.len(), 1);
    assert!(Arc::ptr_eq(&now[0], &last[1]) || Arc::ptr_eq(&now[0], &last[0]));
}

pub(crate) async fn a_page_of_many_images_is_in_order_whatever_is_known_of_them(world: World) {
    let mut images = Vec::new();
    for _ in 0..90 {
        let image = world.image("me");
        world.insert(&image).await;
        images.push(image);
    }
    // None is known, all are, few are not, many are not.
    for changed in [0, 0, 3, 50] {
        for image in &mut images[..changed] {
            image.min_ram += 1;
            *image = world.catalog.update_image(image, trail()).await.unwrap();
        }
        let listed = everything(&world).await;
        let ids = listed.iter().map(|image| image.id);
        assert!(ids.eq(images.iter().rev().map(|image| image.id)));
    }
}

pub(crate) async fn each_view_shows_what_it_promises(world: World) {
    for owner in ["me", "other"] {
        for visibility in Visibility::ALL {
            let mut image = world.image(owner);
            image.name = Some(format!("{owner} {visibility}"));
            image.visibility = *visibility;
            world.insert(&image).await;
        }
    }
    for status in MemberStatus::ALL {
        let mut image = world.image("other");
        image.name = Some(format!("{status}"));
        image.visibility = Visibility::Shared;
        world.insert(&image).await;
        let member = Member {
            image: image.id,
            project: project("me"),
            status: MemberStatus::Pending,
            created_at: image.created_at,
            updated_at: image.created_at,
        };
        world
            .catalog
            .add_member(&member, at_most(9), trail())
            .await
            .unwrap();
        let me = project("me");
        let set = world
            .catalog
            .set_member_status(image.id, &me, *status, trail())
            .await;
        assert!(set.unwrap().is_some());
    }
    let default = all_of(viewer("me"));
    let mine = [
        "other public",
        "me public",
        "me community",
        "me shared",
        "me private",
    ];
    let seen = names(&world, &default).await;
    assert_eq!(seen[0], "accepted");
    assert_eq!(seen[1..], mine);
    let only = |visibility| ImageQuery {
        visible: Visible::Only(visibility),
        ..default.clone()
    };
    assert_eq!(
        names(&world, &only(Visibility::Private)).await,
        ["me private"]
    );
    assert_eq!(
        names(&world, &only(Visibility::Shared)).await,
        ["accepted", "me shared"]
    );
    let community = ["other community", "me community"];
    assert_eq!(names(&world, &only(Visibility::Community)).await, community);
    let any = ImageQuery {
        membership: WantedMembership::Any,
        ..only(Visibility::Shared)
    };
    let shared = ["rejected", "accepted", "pending", "me shared"];
    assert_eq!(names(&world, &any).await, shared);
    let nobody = all_of(Viewer {
        project: None,
        all_projects: false,
        enterprise_projects: None,
    });
    assert_eq!(names(&world, &nobody).await, ["other public", "me public"]);
    let admin = all_of(Viewer {
        project: None,
        all_projects: true,
        enterprise_projects: None,
    });
    assert_eq!(names(&world, &admin).await.len(), 11);
    let unknown = ImageQuery {
        marker: Some(world.image("me").id),
        ..default
    };
    assert_kind(
        world.catalog.list_images(&unknown).await,
        ErrorKind::NotFound,
    );
}

fn sees(query: &ImageQuery, image: &Image, members: &Members) -> bool {
    let viewer = &query.viewer;
    let own = viewer.project.as_ref() == Some(&image.owner);
    let confined = viewer.enterprise_projects.as_ref();
    if confined.is_some_and(|these| !own || !these.contains(&image.enterprise_project)) {
        return false;
    }
    let status = viewer
        .project
        .as_ref()
        .and_then(|p| members.get(&(image.id, p.clone())));
    let shared = image.visibility == Visibility::Shared
        && match query.membership {
            WantedMembership::Any => status.is_some(),
            WantedMembership::Is(wanted) => status == Some(&wanted),
        };
    let public = image.visibility == Visibility::Public;
    let community = image.visibility == Visibility::Community;
    match query.visible {
        Visible::Only(visibility) if image.visibility != visibility => false,
        _ if confined.is_some() => true,
        _ if viewer.all_projects => true,
        Visible::Default => own || public || shared,
        Visible::All | Visible::Only(_) => own || public || community || shared,
    }
}

fn compares(comparison: Comparison, left: Timestamp, right: Timestamp) -> bool {
    match comparison {
        Comparison::Equal => left == right,
        Comparison::NotEqual => left != right,
        Comparison::Less => left < right,
        Comparison::LessOrEqual => left <= right,
        Comparison::Greater => left > right,
        Comparison::GreaterOrEqual => left >= right,
    }
}

fn is_one(words: &[String], word: Option<&String>) -> bool {
    word.is_some_and(|word| words.contains(word))
}

fn meets(condition: &Condition, image: &Image) -> bool {
    match condition {
        Condition::Id(ids) => ids.contains(&image.id),
        Condition::Name(names) => is_one(names, image.name.as_ref()),
        Condition::Status(all) => all.contains(&image.status),
        Condition::Owner(owner) => image.owner == *owner,
        Condition::DiskFormat(words) => is_one(words, image.disk_format.as_ref()),
        Condition::ContainerFormat(words) => is_one(words, image.container_format.as_ref()),
        Condition::Checksum(md5) => image.digests.md5.as_ref() == Some(md5),
        Condition::OsHashValue(hash) => image
            .digests
            .os_hash()
            .is_some_and(|(_, value)| value == hash),
        Condition::MinDisk(gib) => image.min_disk == *gib,
        Condition::MinRam(mib) => image.min_ram == *mib,
        Condition::SizeMin(size) => image.size.is_some_and(|own| own >= *size),
        Condition::SizeMax(size) => image.size.is_some_and(|own| own <= *size),
        Condition::Protected(yes) => image.protected == *yes,
        Condition::Hidden(yes) => image.hidden == *yes,
        Condition::Tag(tag) => image.tags.contains(tag),
        Condition::Property(name, value) => image.property(name) == Some(value),
        Condition::NotProperty(name, values) => !image
            .property(name)
            .is_some_and(|own| values.iter().any(|value| value == own)),
        Condition::CreatedAt(comparison, time) => compares(*comparison, image.created_at, *time),
        Condition::UpdatedAt(comparison, time) => compares(*comparison, image.updated_at, *time),
        Condition::Key(key) => image.cmk_id.as_ref() == Some(key),
        Condition::EnterpriseProject(id) => image.enterprise_project == *id,
        Condition::Visibility(visibility) => image.visibility == *visibility,
        Condition::Nothing => false,
    }
}

fn compare(key: SortKey, a: &Image, b: &Image) -> Ordering {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let size = |image: &Image| image.size.map_or(-1, |size| i128::from(size.bytes()));
    match key {
        SortKey::Id => a.id.cmp(&b.id),
        SortKey::Name => text(&a.name).cmp(&text(&b.name)),
        SortKey::Status => a.status.as_str().cmp(b.status.as_str()),
        SortKey::ContainerFormat => text(&a.container_format).cmp(&text(&b.container_format)),
        SortKey::DiskFormat => text(&a.disk_format).cmp(&text(&b.disk_format)),
        SortKey::Size => size(a).cmp(&size(b)),
        SortKey::CreatedAt => a.created_at.cmp(&b.created_at),
        SortKey::UpdatedAt => a.updated_at.cmp(&b.updated_at),
        SortKey::MinDisk => a.min_disk.cmp(&b.min_disk),
        SortKey::MinRam => a.min_ram.cmp(&b.min_ram),
    }
}

fn model(images: &[Image], members: &Members, query: &ImageQuery) -> Vec<ImageId> {
    let last = query
        .order
        .last()
        .map_or(Direction::Descending, |(_, direction)| *direction);
    let mut order = query.order.clone();
    order.extend([(SortKey::CreatedAt, last), (SortKey::Id, last)]);
    let by = |a: &Image, b: &Image| {
        let one = |(key, direction): &(SortKey, Direction)| match direction {
            Direction::Ascending => compare(*key, a, b),
            Direction::Descending => compare(*key, b, a),
        };
        order.iter().map(one).fold(Ordering::Equal, Ordering::then)
    };
    let marker = query
        .marker
        .map(|id| images.iter().find(|image| image.id == id).unwrap());
    let mut found: Vec<&Image> = images
        .iter()
        .filter(|image| sees(query, image, members))
        .filter(|image| {
            query
                .conditions
                .iter()
                .all(|condition| meets(condition, image))
        })
        .filter(|image| marker.is_none_or(|marker| by(image, marker) == Ordering::Greater))
        .collect();
    found.sort_by(|a, b| by(a, b));
    found
        .into_iter()
        .take(query.limit as usize)
        .map(|image| image.id)
        .collect()
}

fn word() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["", "a", "B", "b", "ä", "zz"]).prop_map(str::to_owned)
}

fn owner() -> impl Strategy<Value = ProjectId> {
    prop::sample::select(vec!["p1", "p2", "p3"]).prop_map(project)
}

fn time() -> impl Strategy<Value = Timestamp> {
    (0..6_i64).prop_map(|n| Timestamp::from_micros(DAY + n))
}

fn any_of<T: Copy + std::fmt::Debug + 'static>(all: &'static [T]) -> impl Strategy<Value = T> {
    prop::sample::select(all)
}

fn image(n: u128) -> impl Strategy<Value = Image> {
    let words = (
        prop::option::of(word()),
        prop::option::of(word()),
        prop::option::of(word()),
    );
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (prop::option::of(0..4_u64), 0..3_u32, 0..3_u32);
    let attributes = (
        prop::collection::btree_map(word(), word(), 0..4),
        prop::collection::btree_set(word(), 0..3),
    );
    let kinds = (
        owner(),
        any_of(ImageStatus::ALL),
        any_of(Visibility::ALL),
        time(),
        time(),
    );
    (words, flags, sizes, attributes, kinds).prop_map(
        move |(words, flags, sizes, (properties, tags), kinds)| Image {
            // Ids in an order that is not that of creation.
            id: uuid::Uuid::from_u128(n.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835))
                .into(),
            name: words.0,
            owner: kinds.0,
            status: kinds.1,
            visibility: kinds.2,
            disk_format: words.1,
            container_format: words.2.clone(),
            min_disk: sizes.1,
            min_ram: sizes.2,
            protected: flags.0,
            hidden: flags.1,
            size: sizes.0.map(ByteSize::new),
            virtual_size: None,
            digests: calotype_core::image::Digests {
                md5: words.2.clone(),
                sha256: words.2.clone(),
                sha512: words.2.filter(|_| flags.2),
            },
            blob: None,
            wrapped_key: None,
            damaged_at: None,
            cmk_id: flags.2.then(|| "k1".parse().unwrap()),
            // Neither always there nor never, and not with the flags.
            enterprise_project: match n % 3 {
                0 => EnterpriseProjectId::Default,
                _ => group(n % 3),
            },
            properties,
            tags: tags.into_iter().collect(),
            created_at: kinds.3,
            updated_at: kinds.4,
            active_at: None,
            version: 1,
        },
    )
}

fn group(n: u128) -> EnterpriseProjectId {
    EnterpriseProjectId::Id(uuid::Uuid::from_u128(n))
}

fn groups() -> impl Strategy<Value = Option<Vec<EnterpriseProjectId>>> {
    let all = vec![EnterpriseProjectId::Default, group(1), group(2)];
    prop::option::weighted(0.3, prop::sample::subsequence(all, 1..3))
}

fn comparison() -> impl Strategy<Value = Comparison> {
    any_of(&[
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::LessOrEqual,
        Comparison::Greater,
        Comparison::GreaterOrEqual,
    ])
}

fn condition(ids: Vec<ImageId>) -> impl Strategy<Value = Condition> {
    let words = || prop::collection::vec(word(), 0..4);
    let size = || (0..4_u64).prop_map(ByteSize::new);
    prop_oneof![
        prop::collection::vec(prop::sample::select(ids), 0..20).prop_map(Condition::Id),
        words().prop_map(Condition::Name),
        prop::collection::vec(any_of(ImageStatus::ALL), 1..3).prop_map(Condition::Status),
        owner().prop_map(Condition::Owner),
        words().prop_map(Condition::DiskFormat),
        words().prop_map(Condition::ContainerFormat),
        word().prop_map(Condition::Checksum),
        word().prop_map(Condition::OsHashValue),
        (0..3_u32).prop_map(Condition::MinDisk),
        (0..3_u32).prop_map(Condition::MinRam),
        size().prop_map(Condition::SizeMin),
        size().prop_map(Condition::SizeMax),
        any::<bool>().prop_map(Condition::Protected),
        any::<bool>().prop_map(Condition::Hidden),
        word().prop_map(Condition::Tag),
        (word(), word()).prop_map(|(name, value)| Condition::Property(name, value)),
        (word(), prop::collection::vec(word(), 0..4))
            .prop_map(|(name, values)| Condition::NotProperty(name, values)),
        (comparison(), time()).prop_map(|(c, time)| Condition::CreatedAt(c, time)),
        (comparison(), time()).prop_map(|(c, time)| Condition::UpdatedAt(c, time)),
        Just(Condition::Key("k1".parse().unwrap())),
        Just(Condition::EnterpriseProject(EnterpriseProjectId::Default)),
        any_of(Visibility::ALL).prop_map(Condition::Visibility),
        Just(Condition::Nothing),
    ]
}

fn sort_key() -> impl Strategy<Value = SortKey> {
    any_of(&[
        SortKey::Id,
        SortKey::Name,
        SortKey::Status,
        SortKey::ContainerFormat,
        SortKey::DiskFormat,
        SortKey::Size,
        SortKey::CreatedAt,
        SortKey::UpdatedAt,
        SortKey::MinDisk,
        SortKey::MinRam,
    ])
}

fn query(ids: Vec<ImageId>) -> impl Strategy<Value = ImageQuery> {
    let direction = any_of(&[Direction::Ascending, Direction::Descending]);
    let visible = prop_oneof![
        3 => Just(Visible::Default),
        1 => Just(Visible::All),
        1 => any_of(Visibility::ALL).prop_map(Visible::Only),
    ];
    let membership = prop_oneof![
        any_of(MemberStatus::ALL).prop_map(WantedMembership::Is),
        Just(WantedMembership::Any),
    ];
    (
        (
            prop::option::weighted(0.9, owner()),
            prop::bool::weighted(0.2),
            groups(),
        ),
        visible,
        membership,
        prop::collection::vec(condition(ids.clone()), 0..3),
        prop::collection::vec((sort_key(), direction), 0..3),
        prop::option::of(prop::sample::select(ids)),
        1..40_u32,
    )
        .prop_map(
            |(viewer, visible, membership, conditions, order, marker, limit)| ImageQuery {
                viewer: Viewer {
                    project: viewer.0,
                    // Who is confined does not see all.
                    all_projects: viewer.1 && viewer.2.is_none(),
                    enterprise_projects: viewer.2,
                },
                visible,
                membership,
                conditions,
                order,
                marker,
                limit,
            },
        )
}

pub(crate) async fn every_list_is_what_the_model_says(world: World) {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let mut images = Vec::new();
    let mut members = Members::new();
    for n in 1..80 {
        let image = image(n).new_tree(&mut runner).unwrap().current();
        world.insert(&image).await;
        for project in ["p1", "p2", "p3"].map(project) {
            let status = prop::option::of(any_of(MemberStatus::ALL));
            let status = status.new_tree(&mut runner).unwrap().current();
            let Some(status) = status else { continue };
            let member = Member {
                image: image.id,
                project: project.clone(),
                status: MemberStatus::Pending,
                created_at: image.created_at,
                updated_at: image.created_at,
            };
            world
                .catalog
                .add_member(&member, at_most(9), trail())
                .await
                .unwrap();
            let set = world
                .catalog
                .set_member_status(image.id, &project, status, trail())
                .await;
            assert!(set.unwrap().is_some());
            members.insert((image.id, project), status);
        }
        // Members of a private image, as they are left where one stops being shared.
        let visibility = image.visibility;
        let wanted = Image {
            visibility,
            ..world.get(image.id).await
        };
        images.push(world.catalog.update_image(&wanted, trail()).await.unwrap());
    }
    // A change of visibility moves an image between the sets that its attributes are found in.
    for image in images.iter_mut().take(20) {
        let visibility = any_of(Visibility::ALL)
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let wanted = Image {
            visibility,
            ..image.clone()
        };
        *image = world.catalog.update_image(&wanted, trail()).await.unwrap();
    }
    let ids: Vec<ImageId> = images.iter().map(|image| image.id).collect();
    let queries = query(ids);
    let mut found = 0;
    for _ in 0..1500 {
        let query = queries.new_tree(&mut runner).unwrap().current();
        let listed = world.catalog.list_images(&query).await.unwrap();
        let expected = model(&images, &members, &query);
        let listed_ids: Vec<ImageId> = listed.iter().map(|image| image.id).collect();
        assert_eq!(listed_ids, expected, "{query:#?}");
        for image in &listed {
            assert_eq!(
                images.iter().find(|known| known.id == image.id),
                Some(&***image)
            );
        }
        found += listed.len();
    }
    assert!(
        found > 1000,
        "the queries find too little to say anything: {found}"
    );
}
