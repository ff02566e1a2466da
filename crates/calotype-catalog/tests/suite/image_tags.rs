//! Images by their tags, and the tags of images.

use calotype_core::image::Visibility;
use calotype_core::ports::{Images as _, Window};
use calotype_core::query::{Condition, TagCondition, TagQuery, Viewer, WantedTag};

use crate::listing::all_of;
use crate::world::{World, project};

const EVERYTHING: Window = Window {
    offset: 0,
    limit: 100,
};

async fn tagged(world: &World, owner: &str, name: &str, tags: &[&str]) {
    let mut image = world.image(owner);
    image.name = (!name.is_empty()).then(|| name.to_owned());
    image.tags = tags.iter().map(|tag| (*tag).to_owned()).collect();
    image.visibility = Visibility::Public;
    world.insert(&image).await;
}

fn wanted(key: &str, values: &[&str]) -> WantedTag {
    WantedTag {
        key: key.to_owned(),
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    }
}

async fn found(world: &World, conditions: Vec<TagCondition>, window: Window) -> (String, u64) {
    let query = TagQuery {
        owner: project("me"),
        conditions,
    };
    let page = world.catalog.find_by_tags(&query, window).await.unwrap();
    let names = page.items.iter();
    let names: Vec<&str> = names
        .map(|image| image.name.as_deref().unwrap_or("-"))
        .collect();
    (names.join(" "), page.total)
}

pub(crate) async fn images_are_found_by_the_keys_and_values_of_their_tags(world: World) {
    tagged(&world, "me", "a", &["k=1", "l=x"]).await;
    tagged(&world, "me", "b", &["k=2", "ka=1", "k-=1"]).await;
    tagged(&world, "me", "c", &["k"]).await;
    tagged(&world, "me", "d", &["k="]).await;
    tagged(&world, "me", "e", &["K=1", "ka=2", "k>=1", "Größe=ß"]).await;
    tagged(&world, "me", "", &[]).await;
    tagged(&world, "other", "f", &["k=1"]).await;
    let cases = [
        (vec![], "- e d c b a"),
        (vec![TagCondition::All(vec![wanted("k", &[])])], "d c b a"),
        (vec![TagCondition::All(vec![wanted("k", &["1"])])], "a"),
        (
            vec![TagCondition::All(vec![wanted("k", &["1", "2"])])],
            "b a",
        ),
        (vec![TagCondition::All(vec![wanted("k", &[""])])], "d c"),
        (vec![TagCondition::All(vec![wanted("Größe", &["ß"])])], "e"),
        (
            vec![TagCondition::All(vec![
                wanted("k", &[]),
                wanted("l", &["x", "y"]),
            ])],
            "a",
        ),
        (vec![TagCondition::All(vec![wanted("k=1", &[])])], ""),
        (
            vec![TagCondition::Any(vec![wanted("ka", &[]), wanted("l", &[])])],
            "e b a",
        ),
        (
            vec![TagCondition::NotAll(vec![
                wanted("k", &[]),
                wanted("l", &[]),
            ])],
            "- e d c b",
        ),
        (
            vec![TagCondition::NotAny(vec![
                wanted("k", &[]),
                wanted("ka", &["2"]),
            ])],
            "-",
        ),
        (
            vec![
                TagCondition::All(vec![wanted("k", &[])]),
                TagCondition::NotAny(vec![wanted("l", &[])]),
            ],
            "d c b",
        ),
        (vec![TagCondition::All(vec![])], "- e d c b a"),
        (vec![TagCondition::Any(vec![])], ""),
        (vec![TagCondition::Untagged], "-"),
        (vec![TagCondition::Name(String::new())], "-"),
        (vec![TagCondition::Name("b".to_owned())], "b"),
        (vec![TagCondition::Name("B".to_owned())], ""),
        (vec![TagCondition::Name("_".to_owned())], ""),
        (vec![TagCondition::Nothing], ""),
    ];
    for (conditions, expected) in cases {
        let (names, total) = found(&world, conditions.clone(), EVERYTHING).await;
        assert_eq!(names, expected, "{conditions:?}");
        assert_eq!(total, expected.split_whitespace().count() as u64);
    }
    let a = found(&world, vec![TagCondition::Name("a".to_owned())], EVERYTHING);
    assert_eq!(a.await.1, 1);
    let window = |offset, limit| Window { offset, limit };
    for (part, expected) in [
        (window(0, 2), "- e"),
        (window(2, 3), "d c b"),
        (window(5, 3), "a"),
        (window(6, 3), ""),
        (window(u64::MAX, u64::MAX), ""),
        (window(0, 0), ""),
    ] {
        assert_eq!(found(&world, vec![], part).await, (expected.to_owned(), 6));
    }
}

pub(crate) async fn tags_come_sorted_byte_by_byte_and_each_once(world: World) {
    tagged(&world, "me", "a", &["b", "a=1", "ä"]).await;
    tagged(&world, "me", "b", &["b", "B", "a-1", "a=1"]).await;
    tagged(&world, "other", "c", &["z"]).await;
    let mine = world.catalog.project_tags(&project("me")).await.unwrap();
    assert_eq!(mine, ["B", "a-1", "a=1", "b", "ä"]);
    let none = world.catalog.project_tags(&project("nobody")).await;
    assert_eq!(none.unwrap(), Vec::<String>::new());
    let viewer = Viewer {
        project: Some(project("me")),
        all_projects: false,
        enterprise_projects: None,
    };
    let all = all_of(viewer);
    let of = async |conditions: Vec<Condition>, limit: u32| {
        let mut query = all.clone();
        query.conditions = conditions;
        query.limit = limit;
        world.catalog.tags_of_images(&query).await.unwrap()
    };
    assert_eq!(of(vec![], 100).await, ["B", "a-1", "a=1", "b", "z", "ä"]);
    assert_eq!(of(vec![], 2).await, ["B", "a-1"]);
    assert_eq!(
        of(vec![Condition::Tag("ä".to_owned())], 100).await,
        ["a=1", "b", "ä"]
    );
    assert_eq!(
        of(vec![Condition::Nothing], 100).await,
        Vec::<String>::new()
    );
    // The marker counts images, not tags.
    let mut query = all.clone();
    let newest = world
        .catalog
        .list_images(&all)
        .await
        .unwrap()
        .swap_remove(0);
    query.marker = Some(newest.id);
    let after = world.catalog.tags_of_images(&query).await.unwrap();
    assert_eq!(after, ["B", "a-1", "a=1", "b", "ä"]);
}
