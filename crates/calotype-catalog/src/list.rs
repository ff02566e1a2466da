//! Lists of images: one statement that reads no more than its page.
//!
//! What a viewer sees is a union of sets, each of which one index holds in order: its own images, public
//! ones, community ones, those shared with it. Each *branch* reads the beginning of one set, from the
//! marker on and no further than the limit; the union of the beginnings holds the beginning of the union.
//! A branch is *driven* by the table whose index gives its order: by a tag's or property's rows where one
//! is asked for, else by the images' own. The columns that filters compare with a value have indexes of their own, so that
//! a value that few images have is found as fast as one that all have; of several such conditions the
//! one that leaves fewest as a rule drives. Bounds of sizes, changes before a time, and the lack of a property that nearly
//! all images have are looked for in order. An administrator's view over all projects has no such indexes,
//! but where it asks for one owner's images.
//!
//! SQLite plans without statistics here, so the text leaves it no choice: `cross join` fixes the order of
//! tables, and `coalesce(column, '')` keeps a condition from being answered by an index. PostgreSQL has statistics, but keeps a
//! plan for all values of a statement's arguments, where that looks no dearer: so the text has the limit and the visibility as
//! they are, and the order of a set is no other set's.
//!
//! A page is asked for its images' stamps first, and then for those images alone that are not known as they are now ([`known`]).
//!
//! Paging is by key: a page begins after its marker's values, whatever was made or deleted meanwhile.

use calotype_core::id::{EnterpriseProjectId, ImageId, ProjectId};
use calotype_core::image::Visibility;
use calotype_core::query::{
    Comparison, Condition, Direction, ImageQuery, SortKey, Viewer, WantedMembership,
};
use calotype_core::{Error, Result};

use crate::db::{Arg, Db, Engine, Row};
use crate::rows::image_column;

mod conditions;
mod known;
mod sets;

use conditions::{NAME_OF_ALL, changed, column_of, created_at, meets};
pub(crate) use known::{KnownImages, list_images};
use sets::{Set, wanted_sets};

/// What has to be asked before a page can be.
pub(crate) struct Start {
    /// The values of the marker, where there is one.
    marker: Option<Vec<Arg>>,
    driver: Driver,
}

/// Where a query's page begins, and what drives it.
pub(crate) async fn start_of(db: &Db, known: &KnownImages, query: &ImageQuery) -> Result<Start> {
    let marker = match query.marker {
        None => None,
        Some(marker) => Some(marker_values(db, marker, &total_order(query)).await?),
    };
    let driver = match driver_of(query) {
        Driver::Images if is_by_creation(query) => changed_few(db, known, query).await?,
        other => other,
    };
    Ok(Start { marker, driver })
}

/// Images that are sorted rather than looked for along the order of all.
const FEW: i64 = 1000;

/// The driver of a query for what was changed since a time: few such images are found by that time, and many come soon in
/// the order of creation.
async fn changed_few(db: &Db, known: &KnownImages, query: &ImageQuery) -> Result<Driver> {
    let since = query
        .conditions
        .iter()
        .enumerate()
        .find_map(|(at, condition)| match condition {
            Condition::UpdatedAt(Comparison::Greater | Comparison::GreaterOrEqual, time) => {
                Some((at, *time))
            }
            _ => None,
        });
    let project = query.viewer.project.as_ref();
    let (Some((at, time)), Some(project), false) = (since, project, query.viewer.all_projects)
    else {
        return Ok(Driver::Images);
    };
    if known.changed_many(project, time) {
        return Ok(Driver::Images);
    }
    let sql = "select count(*) as changed from (select 1 from images i \
        where i.owner = $1 and i.updated_at >= $2 limit $3) as few";
    let args = vec![Arg::text(project), Arg::time(time), (FEW + 1).into()];
    let rows = db.fetch_all(sql.to_owned(), args).await?;
    let changed = rows.first().map_or(Ok(0), |row| row.int("changed"))?;
    if changed <= FEW {
        return Ok(Driver::Changed(at));
    }
    known.note_changed_many(project, time);
    Ok(Driver::Images)
}

/// The order with what makes it total: time of creation and id, in the direction of the last key.
fn total_order(query: &ImageQuery) -> Vec<(SortKey, Direction)> {
    let last = query.order.last();
    let direction = last.map_or(Direction::Descending, |(_, direction)| *direction);
    let tail = [(SortKey::CreatedAt, direction), (SortKey::Id, direction)];
    let mut order: Vec<(SortKey, Direction)> = Vec::new();
    for (key, direction) in query.order.iter().copied().chain(tail) {
        if !order.iter().any(|(earlier, _)| *earlier == key) {
            order.push((key, direction));
        }
        // Ids differ: nothing after them matters.
        if key == SortKey::Id {
            break;
        }
    }
    order
}

/// The expression over `images i` that a key orders by.
fn expression(key: SortKey) -> &'static str {
    match key {
        SortKey::Id => "i.id",
        SortKey::Name => "i.name_key",
        SortKey::Status => "i.status",
        SortKey::ContainerFormat => "coalesce(i.container_format, '')",
        SortKey::DiskFormat => "coalesce(i.disk_format, '')",
        SortKey::Size => "coalesce(i.size, -1)",
        SortKey::CreatedAt => "i.created_at",
        SortKey::UpdatedAt => "i.updated_at",
        SortKey::MinDisk => "i.min_disk",
        SortKey::MinRam => "i.min_ram",
    }
}

async fn marker_values(
    db: &Db,
    marker: ImageId,
    order: &[(SortKey, Direction)],
) -> Result<Vec<Arg>> {
    let columns: Vec<String> = (0..)
        .zip(order)
        .map(|(n, (key, _)): (usize, _)| format!("{} as k{n}", expression(*key)))
        .collect();
    let sql = format!(
        "select {} from images i where i.id = $1",
        columns.join(", ")
    );
    let rows = db.fetch_all(sql, vec![Arg::text(marker)]).await?;
    let Some(row) = rows.first() else {
        return Err(Error::not_found("The marker is no image."));
    };
    let value = |(n, (key, _)): (usize, &(SortKey, Direction))| key_value(row, n, *key);
    (0..).zip(order).map(value).collect()
}

fn key_value(row: &Row, n: usize, key: SortKey) -> Result<Arg> {
    let column = format!("k{n}");
    Ok(match key {
        SortKey::Id
        | SortKey::Name
        | SortKey::Status
        | SortKey::ContainerFormat
        | SortKey::DiskFormat => Arg::text(row.text(&column)?),
        SortKey::Size
        | SortKey::CreatedAt
        | SortKey::UpdatedAt
        | SortKey::MinDisk
        | SortKey::MinRam => row.int(&column)?.into(),
    })
}

/// The table that a branch is driven by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Driver {
    /// The images, by an index on what the set is about.
    Images,
    /// The images, by their primary key: the condition at this place names few.
    Ids(usize),
    /// The images, by an index that has the name: the condition at this place names it.
    Name,
    /// The rows of the tag or property that the condition at this place asks for.
    Attribute(usize),
    /// The images, by an index that has the column which the condition at this place is about.
    Column(usize),
    /// The images that were changed since the time in the condition at this place, sorted.
    Changed(usize),
}

impl Driver {
    /// What drives the branch of a set: its index on a column, where it has one. What changed was counted of the viewer's own.
    fn of(self, set: &Set, viewer: &Viewer) -> Self {
        let has_columns = matches!(
            set,
            Set::Own(..)
                | Set::Shelf(_)
                | Set::Everything(Some(Visibility::Public | Visibility::Community))
        );
        match self {
            Self::Column(_) if !has_columns => Self::Images,
            Self::Changed(_) => match set {
                Set::Own(project, _) if Some(project) == viewer.project.as_ref() => self,
                _ => Self::Images,
            },
            other => other,
        }
    }
}

fn driver_of(query: &ImageQuery) -> Driver {
    let place = |wanted: fn(&Condition) -> bool| query.conditions.iter().position(wanted);
    if let Some(at) = place(|condition| matches!(condition, Condition::Id(_))) {
        return Driver::Ids(at);
    }
    if place(|condition| matches!(condition, Condition::Name(_))).is_some() {
        return Driver::Name;
    }
    if let Some(at) = place(|condition| matches!(condition, Condition::Tag(_))) {
        return Driver::Attribute(at);
    }
    if let Some(at) = place(|condition| matches!(condition, Condition::Property(..))) {
        return Driver::Attribute(at);
    }
    // The columns' indexes have the images in the order of their creation, and in no other.
    let ranked = |(at, condition)| column_of(condition).map(|column| (column.rank, at));
    let chosen = query.conditions.iter().enumerate().filter_map(ranked).min();
    match chosen {
        Some((_, at)) if is_by_creation(query) => Driver::Column(at),
        _ => Driver::Images,
    }
}

fn is_by_creation(query: &ImageQuery) -> bool {
    matches!(query.order.first(), None | Some((SortKey::CreatedAt, _)))
}

/// The text of a statement and its arguments, as they grow together.
#[derive(Default)]
pub(crate) struct Text {
    pub(crate) args: Vec<Arg>,
}

impl Text {
    pub(crate) fn bind(&mut self, arg: Arg) -> String {
        self.args.push(arg);
        format!("${}", self.args.len())
    }

    pub(crate) fn bind_all<T: std::fmt::Display>(&mut self, values: &[T]) -> String {
        let names: Vec<String> = values
            .iter()
            .map(|value| self.bind(Arg::text(value)))
            .collect();
        names.join(", ")
    }
}

/// The statement for a page with all that its images show.
pub(crate) fn statement(query: &ImageQuery, page: PageKeys, engine: Engine) -> (String, Vec<Arg>) {
    let column = image_column(engine);
    let again = order_by(&total_order(query), |n, _| format!("page.k{n}"));
    let sql = format!(
        "select {column} from ({}) as page cross join images i \
         where i.id = page.k{} order by {again}",
        page.sql, page.id
    );
    (sql, page.text.args)
}

/// The statement for the stamps of a page's images: one text, which costs less than a row for each.
fn stamps_statement(query: &ImageQuery, page: &PageKeys) -> String {
    let again = order_by(&total_order(query), |n, _| format!("page.k{n}"));
    format!(
        "select string_agg(page.stamp, ',' order by {again}) as stamps from ({}) as page",
        page.sql
    )
}

/// What selects the images of a page.
pub(crate) struct PageKeys {
    /// The statement that gives their keys of order, `k0`, `k1`, ..., and what was asked for beside them.
    pub(crate) sql: String,
    /// Which of the keys is the id.
    pub(crate) id: usize,
    /// The statement's arguments.
    pub(crate) text: Text,
}

/// The keys of a page's images and nothing else.
pub(crate) const KEYS: &str = "";

/// The keys of a page's images, with what is asked for beside them; none where no image can be on it.
pub(crate) fn page_of(query: &ImageQuery, start: Start, beside: &'static str) -> Option<PageKeys> {
    let Start { marker, driver } = start;
    let order = total_order(query);
    let sets = wanted_sets(query);
    let empty = |condition: &Condition| match condition {
        Condition::Id(ids) => ids.is_empty(),
        Condition::Name(words)
        | Condition::DiskFormat(words)
        | Condition::ContainerFormat(words) => words.is_empty(),
        Condition::Status(words) => words.is_empty(),
        _ => false,
    };
    if sets.is_empty() || query.limit == 0 || query.conditions.iter().any(empty) {
        return None;
    }
    let mut text = Text::default();
    let marker: Option<Vec<String>> =
        marker.map(|values| values.into_iter().map(|value| text.bind(value)).collect());
    // Few enterprise projects are a branch each: that is read off their index.
    let within: Vec<Option<&[EnterpriseProjectId]>> = match &query.viewer.enterprise_projects {
        None => vec![None],
        Some(these) if these.len() <= FEW_ENTERPRISE_PROJECTS => {
            these.chunks(1).map(Some).collect()
        }
        Some(these) => vec![Some(these)],
    };
    let parts = sets.iter().flat_map(|set| {
        within.iter().map(move |within| Part {
            set,
            within: *within,
            beside,
        })
    });
    let branches: Vec<String> = parts
        .map(|part| branch(&mut text, query, part, driver, &order, marker.as_deref()))
        .collect();
    if branches.is_empty() {
        return None;
    }
    let outer = order_by(&order, |n, _| format!("k{n}"));
    let id = order.len() - 1;
    let sql = match branches.as_slice() {
        [one] => one.clone(),
        many => {
            let parts: Vec<String> = (0..)
                .zip(many)
                .map(|(n, branch): (usize, _)| format!("select * from ({branch}) as b{n}"))
                .collect();
            let union = parts.join(" union ");
            format!("{union} order by {outer} limit {}", query.limit)
        }
    };
    Some(PageKeys { sql, id, text })
}

fn order_by(order: &[(SortKey, Direction)], name: impl Fn(usize, SortKey) -> String) -> String {
    let terms: Vec<String> = (0..)
        .zip(order)
        .map(|(n, (key, direction))| match direction {
            Direction::Ascending => name(n, *key),
            Direction::Descending => format!("{} desc", name(n, *key)),
        })
        .collect();
    terms.join(", ")
}

/// Enterprise projects that are asked for one by one.
const FEW_ENTERPRISE_PROJECTS: usize = 16;

/// A set, or what is of it in some enterprise projects.
struct Part<'a> {
    set: &'a Set,
    within: Option<&'a [EnterpriseProjectId]>,
    /// More columns than the keys.
    beside: &'static str,
}

/// One branch: the keys of the beginning of one set, or of a part of it.
fn branch(
    text: &mut Text,
    query: &ImageQuery,
    Part {
        set,
        within,
        beside,
    }: Part<'_>,
    driver: Driver,
    order: &[(SortKey, Direction)],
    marker: Option<&[String]>,
) -> String {
    let driver = driver.of(set, &query.viewer);
    let mut wheres: Vec<String> = Vec::new();
    let name = |(key, _): &(SortKey, Direction)| key_of(set, driver, *key, order);
    let names: Vec<&str> = order.iter().map(name).collect();
    let from: String;
    let mut met = None;
    match (set, driver) {
        (
            Set::SharedWith(project, membership),
            Driver::Images
            | Driver::Name
            | Driver::Attribute(_)
            | Driver::Column(_)
            | Driver::Changed(_),
        ) => {
            from = "image_members d cross join images i".to_owned();
            wheres.push("i.id = d.image_id".to_owned());
            wheres.push(format!("d.project = {}", text.bind(Arg::text(project))));
            if let WantedMembership::Is(status) = membership {
                wheres.push(format!("d.status = {}", text.bind(Arg::text(status))));
            }
            wheres.push("coalesce(i.visibility, '') = 'shared'".to_owned());
        }
        (_, Driver::Attribute(at)) => {
            let (table, what) = match query.conditions.get(at) {
                Some(Condition::Property(name, value)) => {
                    let name = text.bind(Arg::text(name));
                    let value = text.bind(Arg::text(value));
                    (
                        "image_properties",
                        format!("d.name = {name} and d.value = {value}"),
                    )
                }
                Some(Condition::Tag(tag)) => (
                    "image_tags",
                    format!("d.tag = {}", text.bind(Arg::text(tag))),
                ),
                _ => ("image_tags", "false".to_owned()),
            };
            met = Some(at);
            from = format!("{table} d cross join images i");
            wheres.push("i.id = d.image_id".to_owned());
            wheres.push(what);
            match set {
                Set::Own(project, kind) => {
                    wheres.push(format!("d.owner = {}", text.bind(Arg::text(project))));
                    if let Some(kind) = kind {
                        let kind = quoted(*kind);
                        wheres.push(format!("coalesce(i.visibility, '') = {kind}"));
                    }
                }
                Set::Shelf(shelf)
                | Set::Everything(Some(shelf @ (Visibility::Public | Visibility::Community))) => {
                    wheres.push(format!("d.shelf = {}", quoted(*shelf)));
                }
                Set::Everything(Some(kind)) => {
                    let kind = quoted(*kind);
                    wheres.push(format!("coalesce(i.visibility, '') = {kind}"));
                }
                Set::Everything(None) | Set::SharedWith(..) => {}
            }
        }
        (_, Driver::Ids(_)) => {
            from = "images i".to_owned();
            let own = |text: &mut Text, project: &ProjectId| {
                format!("coalesce(i.owner, '') = {}", text.bind(Arg::text(project)))
            };
            match set {
                Set::Own(project, kind) => {
                    wheres.push(own(text, project));
                    if let Some(kind) = kind {
                        let kind = quoted(*kind);
                        wheres.push(format!("coalesce(i.visibility, '') = {kind}"));
                    }
                }
                Set::Shelf(kind) | Set::Everything(Some(kind)) => {
                    let kind = quoted(*kind);
                    wheres.push(format!("coalesce(i.visibility, '') = {kind}"));
                }
                Set::SharedWith(project, membership) => {
                    wheres.push("coalesce(i.visibility, '') = 'shared'".to_owned());
                    let project = text.bind(Arg::text(project));
                    let status = match membership {
                        WantedMembership::Any => String::new(),
                        WantedMembership::Is(status) => {
                            format!(" and m.status = {}", text.bind(Arg::text(status)))
                        }
                    };
                    wheres.push(format!(
                        "exists (select 1 from image_members m where m.image_id = i.id \
                         and m.project = {project}{status})"
                    ));
                }
                Set::Everything(None) => {}
            }
        }
        (_, Driver::Images | Driver::Name | Driver::Column(_) | Driver::Changed(_)) => {
            from = "images i".to_owned();
            match set {
                Set::Own(project, kind) => {
                    wheres.push(format!("i.owner = {}", text.bind(Arg::text(project))));
                    if let Some(kind) = kind {
                        let kind = quoted(*kind);
                        wheres.push(match driver {
                            Driver::Images => format!("(i.visibility || '') = {kind}"),
                            _ => format!("coalesce(i.visibility, '') = {kind}"),
                        });
                    }
                }
                Set::Shelf(kind) | Set::Everything(Some(kind)) => {
                    wheres.push(is_of_kind(*kind, driver, order));
                }
                Set::Everything(None) | Set::SharedWith(..) => {}
            }
        }
    }
    for (at, condition) in query.conditions.iter().enumerate() {
        if met == Some(at) || set.meets(condition) == Some(true) {
            continue;
        }
        wheres.push(match column_of(condition) {
            Some(column) if driver == Driver::Column(at) => column.drives(text),
            Some(column) => column.meets(text),
            None if driver == Driver::Changed(at) => changed(text, condition),
            None => meets(text, condition, set, driver),
        });
    }
    match within {
        None => {}
        Some([one]) => wheres.push(format!(
            "i.enterprise_project = {}",
            text.bind(Arg::text(one))
        )),
        Some(these) => {
            let these = text.bind_all(these);
            wheres.push(format!("i.enterprise_project in ({these})"));
        }
    }
    if let Some(marker) = marker {
        wheres.push(after(&names, order, marker));
    }
    let keys: Vec<String> = (0..)
        .zip(&names)
        .map(|(n, name): (usize, _)| format!("{name} as k{n}"))
        .collect();
    let by = order_by(order, |n, _| {
        names.get(n).copied().unwrap_or_default().to_owned()
    });
    let wheres = if wheres.is_empty() {
        "true".to_owned()
    } else {
        wheres.join(" and ")
    };
    format!(
        "select {}{beside} from {from} where {wheres} order by {by} limit {}",
        keys.join(", "),
        query.limit
    )
}

/// An image's id, as the indexes have it that give the order of an owner's and of a shelf's.
const ID_OF_SET: &str = "(i.id || '')";

/// The id of an image that is shared with a project, as the index has it that gives their order.
const ID_OF_SHARED: &str = "(d.image_id || '')";

/// A visibility as SQL has it.
fn quoted(visibility: Visibility) -> String {
    format!("'{visibility}'")
}

/// That an image has this visibility, as the index says it that gives the branch's order.
fn is_of_kind(kind: Visibility, driver: Driver, order: &[(SortKey, Direction)]) -> String {
    let value = quoted(kind);
    match (driver, order.first()) {
        (Driver::Images, Some((SortKey::CreatedAt, _))) => {
            format!("(i.visibility || '') = {value}")
        }
        // Other indexes have no other images than these.
        (Driver::Images | Driver::Column(_), Some((key, _)))
            if *key != SortKey::Name
                && matches!(kind, Visibility::Public | Visibility::Community) =>
        {
            format!("i.visibility = {value} and i.visibility in ('public', 'community')")
        }
        _ => format!("i.visibility = {value}"),
    }
}

/// What a branch orders by for one key of an order: the driving table has the same values of id and creation.
fn key_of(set: &Set, driver: Driver, key: SortKey, order: &[(SortKey, Direction)]) -> &'static str {
    match (set, driver, key) {
        (_, Driver::Ids(_), _) => expression(key),
        (
            Set::Own(..)
            | Set::Shelf(_)
            | Set::Everything(Some(Visibility::Public | Visibility::Community)),
            Driver::Images,
            SortKey::Id,
        ) if order.len() == 1 => ID_OF_SET,
        (Set::SharedWith(..), _, SortKey::Id) if order.len() == 1 => ID_OF_SHARED,
        (Set::SharedWith(..), _, SortKey::Id) | (_, Driver::Attribute(_), SortKey::Id) => {
            "d.image_id"
        }
        (_, _, SortKey::CreatedAt) => created_at(set, driver),
        (Set::Everything(None), _, SortKey::Name) => NAME_OF_ALL,
        _ => expression(key),
    }
}

/// That a row comes after the marker in this order.
fn after(names: &[&str], order: &[(SortKey, Direction)], marker: &[String]) -> String {
    let first = order.first().map(|(_, direction)| *direction);
    let sign = |direction| match direction {
        Direction::Ascending => ">",
        Direction::Descending => "<",
    };
    if order.iter().all(|(_, direction)| Some(*direction) == first) {
        let sign = sign(first.unwrap_or(Direction::Descending));
        let all = format!("({}) {sign} ({})", names.join(", "), marker.join(", "));
        // SQLite begins in the middle of an index by a row only where that begins with a column.
        return match (names, marker) {
            ([name, _, ..], [value, ..]) if !is_column(name) => {
                format!("{all} and {name} {sign}= {value}")
            }
            _ => all,
        };
    }
    // Mixed directions: equal up to some key, and beyond the marker at it.
    let mut equal = String::new();
    let mut terms = Vec::new();
    for ((name, value), (_, direction)) in names.iter().zip(marker).zip(order) {
        terms.push(format!("({equal}{name} {} {value})", sign(*direction)));
        equal.push_str(&format!("{name} = {value} and "));
    }
    format!("({})", terms.join(" or "))
}

fn is_column(name: &str) -> bool {
    name.starts_with("i.") || name.starts_with("d.")
}

#[cfg(test)]
mod plans;
