//! How SQLite goes about the main shapes of lists: each branch straight off an index, without reading a
//! table from end to end and without sorting. Only the beginnings of the branches are merged by a sort.

use std::sync::Arc;

use calotype_core::image::{ImageStatus, MemberStatus};
use calotype_core::query::Visible;
use calotype_core::time::Timestamp;

use super::known::STAMPS;
use super::*;
use crate::clock::Epoch;
use crate::{Options, SqlCatalog};

/// The plan of a query's statement, on a page in the middle: each step with the step that it is part of.
async fn plan(catalog: &SqlCatalog, query: &ImageQuery) -> Vec<(String, String)> {
    plan_by(catalog, query, driver_of(query)).await
}

async fn plan_by(
    catalog: &SqlCatalog,
    query: &ImageQuery,
    driver: Driver,
) -> Vec<(String, String)> {
    let mut tx = catalog.db.read().await.unwrap();
    let order = total_order(query);
    let marker = order.iter().map(|(key, _)| match key {
        SortKey::CreatedAt => Arg::Int(Some(5)),
        _ => Arg::text("m"),
    });
    let start = Start {
        marker: Some(marker.collect()),
        driver,
    };
    let page = page_of(query, start, STAMPS).unwrap();
    let sql = stamps_statement(query, &page);
    let args = page.text.args;
    let rows = tx
        .fetch_all(format!("explain query plan {sql}"), args)
        .await
        .unwrap();
    let step = |row: &Row| (row.int("id").unwrap(), row.text("detail").unwrap());
    let steps: std::collections::BTreeMap<i64, String> = rows.iter().map(step).collect();
    let with_parent = |row: &Row| {
        let parent = steps.get(&row.int("parent").unwrap());
        (
            parent.cloned().unwrap_or_default(),
            row.text("detail").unwrap(),
        )
    };
    rows.iter().map(with_parent).collect()
}

/// Whether a step reads a table from end to end: the coroutines of branches and page are no tables.
fn reads_everything(step: &str) -> bool {
    step.starts_with("SCAN") && !step.starts_with("SCAN b") && step != "SCAN page"
}

/// A condition on each column that has indexes, and the column's name.
fn columns() -> [(Condition, &'static str); 8] {
    let word = || vec!["a".to_owned()];
    let key = "00000000-0000-4000-8000-000000000000";
    [
        (Condition::Key(key.parse().unwrap()), "cmk_id"),
        (
            Condition::EnterpriseProject(key.parse().unwrap()),
            "enterprise_project",
        ),
        (Condition::MinDisk(7), "min_disk"),
        (Condition::MinRam(7), "min_ram"),
        (Condition::DiskFormat(word()), "disk_format"),
        (Condition::ContainerFormat(word()), "container_format"),
        (Condition::Status(vec![ImageStatus::Killed]), "status"),
        (Condition::Protected(true), "protected"),
    ]
}

/// A project, with no eyes for what is others' alone.
fn viewer() -> Viewer {
    Viewer {
        project: Some("p1".parse().unwrap()),
        enterprise_projects: None,
        all_projects: false,
    }
}

/// What a list without any parameter begins with.
fn first_page() -> ImageQuery {
    ImageQuery {
        viewer: viewer(),
        visible: Visible::Default,
        membership: WantedMembership::Is(MemberStatus::Accepted),
        conditions: Vec::new(),
        order: vec![(SortKey::CreatedAt, Direction::Descending)],
        marker: None,
        limit: 25,
    }
}

async fn catalog(place: &tempfile::TempDir) -> SqlCatalog {
    let url = format!("sqlite://{}", place.path().join("catalog.db").display());
    SqlCatalog::open(&url, Options::default(), Arc::new(Epoch))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_filter_by_a_column_is_read_off_that_columns_index() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    for (wanted, column) in columns() {
        let query = ImageQuery {
            // Another one, which leaves more, does not get in its way.
            conditions: vec![Condition::Protected(false), wanted],
            ..first_page()
        };
        let steps = plan(&catalog, &query).await;
        for index in ["owner", "shelf"] {
            let index = format!("images_by_{index}_{column} ");
            let used = steps.iter().any(|(_, step)| step.contains(&index));
            assert!(used, "{index}\n{steps:#?}");
        }
    }
}

#[tokio::test]
async fn who_sees_a_few_enterprise_projects_alone_reads_no_others() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    let one = "11111111-0000-4000-8000-000000000001".parse().unwrap();
    let two = "22222222-0000-4000-8000-000000000002".parse().unwrap();
    let query = ImageQuery {
        viewer: Viewer {
            enterprise_projects: Some(vec![one, two]),
            ..viewer()
        },
        ..first_page()
    };
    let steps = plan(&catalog, &query).await;
    let index = "images_by_owner_enterprise_project ";
    let used = steps.iter().filter(|(_, step)| step.contains(index));
    assert_eq!(used.count(), 2, "{steps:#?}");
}

#[tokio::test]
async fn images_come_sorted_by_each_key_off_an_index() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    for (key, of_owner, of_shelf) in [
        (SortKey::Id, "owner_own_id", "shelf_own_id"),
        (SortKey::Name, "owner_name", "visibility_name"),
        (SortKey::Status, "owner_status", "shelf_status"),
        (
            SortKey::ContainerFormat,
            "owner_container_format",
            "shelf_container_format",
        ),
        (
            SortKey::DiskFormat,
            "owner_disk_format",
            "shelf_disk_format",
        ),
        (SortKey::Size, "owner_size", "shelf_size"),
        (SortKey::CreatedAt, "owner", "kind"),
        (SortKey::UpdatedAt, "owner_update", "shelf_update"),
        (SortKey::MinDisk, "owner_min_disk", "shelf_min_disk"),
        (SortKey::MinRam, "owner_min_ram", "shelf_min_ram"),
    ] {
        let query = ImageQuery {
            order: vec![(key, Direction::Descending)],
            ..first_page()
        };
        let steps = plan(&catalog, &query).await;
        for index in [of_owner, of_shelf] {
            let index = format!("images_by_{index} ");
            let used = steps.iter().any(|(_, step)| step.contains(&index));
            assert!(used, "{index}\n{steps:#?}");
        }
    }
}

#[tokio::test]
async fn what_was_changed_since_a_time_is_read_off_its_index_where_it_is_little() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    let since = Condition::UpdatedAt(Comparison::GreaterOrEqual, Timestamp::from_micros(7));
    let query = ImageQuery {
        conditions: vec![since],
        ..first_page()
    };
    let start = start_of(&catalog.db, &catalog.known, &query).await.unwrap();
    assert!(start.driver == Driver::Changed(0));
    for (driver, index) in [
        (start.driver, "images_by_owner_update "),
        (Driver::Images, "images_by_owner "),
    ] {
        let steps = plan_by(&catalog, &query, driver).await;
        let used = steps.iter().any(|(_, step)| step.contains(index));
        assert!(used, "{index}\n{steps:#?}");
    }
}

#[tokio::test]
async fn where_many_were_changed_since_a_time_many_were_since_an_earlier_one() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    let project = viewer().project.unwrap();
    let driver = async |since| {
        let since = Condition::UpdatedAt(Comparison::Greater, Timestamp::from_micros(since));
        let query = ImageQuery {
            conditions: vec![since],
            ..first_page()
        };
        let start = start_of(&catalog.db, &catalog.known, &query);
        start.await.unwrap().driver
    };
    assert!(driver(7).await == Driver::Changed(0));
    let found = Timestamp::from_micros(7);
    catalog.known.note_changed_many(&project, found);
    assert!(driver(6).await == Driver::Images);
    assert!(driver(7).await == Driver::Images);
    assert!(driver(8).await == Driver::Changed(0));
}

#[tokio::test]
async fn each_main_shape_of_list_is_read_off_an_index_in_order() {
    let place = tempfile::tempdir().unwrap();
    let catalog = catalog(&place).await;
    let viewers = [
        Viewer {
            project: Some("p1".parse().unwrap()),
            all_projects: false,
            enterprise_projects: None,
        },
        Viewer {
            project: None,
            all_projects: true,
            enterprise_projects: None,
        },
    ];
    let by = |key| vec![(key, Direction::Ascending)];
    let condition = |wanted: Condition| vec![Condition::Hidden(false), wanted];
    let shapes = [
        (vec![], vec![]),
        (vec![], by(SortKey::Name)),
        (condition(Condition::Name(vec!["a".to_owned()])), vec![]),
        (condition(Condition::Tag("a".to_owned())), vec![]),
        (
            condition(Condition::Property("a".to_owned(), "b".to_owned())),
            vec![],
        ),
    ];
    let columns = columns();
    let shapes = shapes.into_iter().chain(
        columns
            .into_iter()
            .map(|(wanted, _)| (condition(wanted), vec![])),
    );
    let shapes: Vec<_> = shapes.collect();
    for viewer in &viewers {
        for visible in [Visible::All, Visible::Only(Visibility::Public)] {
            for (conditions, order) in &shapes {
                let query = ImageQuery {
                    viewer: viewer.clone(),
                    visible,
                    membership: WantedMembership::Is(MemberStatus::Accepted),
                    conditions: conditions.clone(),
                    order: order.clone(),
                    marker: None,
                    limit: 25,
                };
                let steps = plan(&catalog, &query).await;
                assert!(steps.iter().any(|(_, step)| step.starts_with("SEARCH")));
                // Sorted by name, what is shared with the viewer has no index to come off.
                let members = steps.iter().any(|(_, step)| step.contains("image_members"));
                let unsorted = usize::from(members && !order.is_empty());
                // The stamps of a page are put in order once more.
                let sorts = |(parent, step): &&(String, String)| {
                    step.contains("TEMP B-TREE")
                        && !step.contains("string_agg")
                        && parent != "LEFT"
                        && parent != "RIGHT"
                };
                let sorted = steps.iter().filter(sorts).count();
                assert!(sorted <= unsorted, "{query:?}\n{steps:#?}");
                let read = steps.iter().any(|(_, step)| reads_everything(step));
                assert!(!read, "{query:?}\n{steps:#?}");
            }
        }
    }
}
