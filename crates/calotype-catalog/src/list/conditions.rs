//! What conditions say in SQL.

use calotype_core::image::Visibility;
use calotype_core::query::{Comparison, Condition};

use super::{Driver, Set, Text};
use crate::db::Arg;

/// A condition that one column has one value.
pub(super) struct Column {
    /// What its indexes have: a column of `images i`, or for lack of a value another one, so that lists are sorted by it too.
    indexed: &'static str,
    /// The same as no index has it.
    other: &'static str,
    value: Arg,
    /// How many images it leaves as a rule, compared with others: fewest first.
    pub(super) rank: u8,
}

/// What a condition says of one column, where it says no more than its value. Each of these columns has an index of its own
/// for an owner's images and for the shelves (`0009_filters.sql`).
pub(super) fn column_of(condition: &Condition) -> Option<Column> {
    let number = |number: u32| Arg::from(i64::from(number));
    let (indexed, other, value, rank) = match condition {
        Condition::Key(key) => ("i.cmk_id", "coalesce(i.cmk_id, '')", Arg::text(key), 0),
        Condition::EnterpriseProject(id) => (
            "i.enterprise_project",
            "coalesce(i.enterprise_project, '')",
            Arg::text(id),
            1,
        ),
        Condition::MinDisk(gib) => ("i.min_disk", "coalesce(i.min_disk, 0)", number(*gib), 2),
        Condition::MinRam(mib) => ("i.min_ram", "coalesce(i.min_ram, 0)", number(*mib), 3),
        Condition::DiskFormat(words) => (
            "coalesce(i.disk_format, '')",
            "i.disk_format",
            only(words)?,
            4,
        ),
        Condition::ContainerFormat(words) => (
            "coalesce(i.container_format, '')",
            "i.container_format",
            only(words)?,
            5,
        ),
        Condition::Status(words) => ("i.status", "coalesce(i.status, '')", only(words)?, 6),
        Condition::Protected(yes) => (
            "i.protected",
            "coalesce(i.protected, false)",
            (*yes).into(),
            7,
        ),
        _ => return None,
    };
    Some(Column {
        indexed,
        other,
        value,
        rank,
    })
}

/// The only one of some words. An empty one is no column's value, and is not what stands for none.
fn only<T: std::fmt::Display>(words: &[T]) -> Option<Arg> {
    let [one] = words else {
        return None;
    };
    let one = one.to_string();
    (!one.is_empty()).then(|| Arg::text(one))
}

impl Column {
    /// So that an index answers it.
    pub(super) fn drives(self, text: &mut Text) -> String {
        format!("{} = {}", self.indexed, text.bind(self.value))
    }

    /// So that no index does: another one drives.
    pub(super) fn meets(self, text: &mut Text) -> String {
        format!("{} = {}", self.other, text.bind(self.value))
    }
}

/// A condition on the time of the last change, so that an index answers it.
pub(super) fn changed(text: &mut Text, condition: &Condition) -> String {
    match condition {
        Condition::UpdatedAt(comparison, time) => {
            let time = text.bind(Arg::time(*time));
            format!("i.updated_at {} {time}", sign_of(*comparison))
        }
        _ => "false".to_owned(),
    }
}

/// A condition over `images i`.
pub(super) fn meets(text: &mut Text, condition: &Condition, set: &Set, driver: Driver) -> String {
    match condition {
        Condition::Id(ids) => format!("i.id in ({})", text.bind_all(ids)),
        Condition::Name(names) => {
            let column = match (driver, set) {
                (Driver::Name, Set::SharedWith(..)) => "coalesce(i.name_key, '')",
                (Driver::Name, Set::Everything(None)) => NAME_OF_ALL,
                (Driver::Name, _) => "i.name_key",
                _ => "coalesce(i.name_key, '')",
            };
            format!(
                "{column} in ({}) and i.name is not null",
                text.bind_all(names)
            )
        }
        Condition::Status(words) => {
            format!("coalesce(i.status, '') in ({})", text.bind_all(words))
        }
        Condition::Owner(owner) => {
            format!("coalesce(i.owner, '') = {}", text.bind(Arg::text(owner)))
        }
        Condition::DiskFormat(words) => {
            format!("i.disk_format in ({})", text.bind_all(words))
        }
        Condition::ContainerFormat(words) => {
            format!("i.container_format in ({})", text.bind_all(words))
        }
        Condition::Checksum(md5) => format!("i.md5 = {}", text.bind(Arg::text(md5))),
        Condition::OsHashValue(value) => {
            // What is shown is the SHA-512 digest where there is one, else the SHA-256 digest.
            format!(
                "coalesce(i.sha512, i.sha256) = {}",
                text.bind(Arg::text(value))
            )
        }
        Condition::SizeMin(size) => format!("i.size >= {}", text.bind(Arg::count(size.bytes()))),
        Condition::SizeMax(size) => format!("i.size <= {}", text.bind(Arg::count(size.bytes()))),
        Condition::Hidden(yes) => format!("i.hidden = {}", text.bind((*yes).into())),
        Condition::Tag(tag) => format!(
            "exists (select 1 from image_tags t where t.image_id = i.id and t.tag = {})",
            text.bind(Arg::text(tag))
        ),
        Condition::Property(name, value) => has_property(text, name, std::slice::from_ref(value)),
        Condition::NotProperty(_, values) if values.is_empty() => "true".to_owned(),
        Condition::NotProperty(name, values) => format!("not {}", has_property(text, name, values)),
        Condition::CreatedAt(comparison, time) => {
            let column = created_at(set, driver);
            let time = text.bind(Arg::time(*time));
            format!("{column} {} {time}", sign_of(*comparison))
        }
        Condition::UpdatedAt(comparison, time) => {
            let sign = sign_of(*comparison);
            let time = text.bind(Arg::time(*time));
            match comparison {
                // No image was changed before it was made, but for clocks that are a day apart at most: where a list's
                // beginning does not meet it, its index skips that.
                Comparison::Less | Comparison::LessOrEqual => {
                    let created = created_at(set, driver);
                    format!(
                        "coalesce(i.updated_at, 0) {sign} {time} and {created} {sign} {time} + 86400000000"
                    )
                }
                _ => format!("coalesce(i.updated_at, 0) {sign} {time}"),
            }
        }
        Condition::Visibility(visibility) => {
            let visibility = text.bind(Arg::text(visibility));
            format!("coalesce(i.visibility, '') = {visibility}")
        }
        // The rest is about columns, see `column_of`, or is met by nothing.
        Condition::MinDisk(_)
        | Condition::MinRam(_)
        | Condition::Protected(_)
        | Condition::Key(_)
        | Condition::EnterpriseProject(_)
        | Condition::Nothing => "false".to_owned(),
    }
}

/// An image's time of creation, as the index has it that gives the order of the branch's driver.
pub(super) fn created_at(set: &Set, driver: Driver) -> &'static str {
    match (set, driver) {
        (_, Driver::Ids(_)) => "i.created_at",
        (Set::SharedWith(..), _) => "d.image_created_at",
        // With a sign it is no index's: few images are sorted.
        (_, Driver::Changed(_)) => "+i.created_at",
        (
            Set::Everything(None | Some(Visibility::Private | Visibility::Shared)),
            Driver::Attribute(_),
        ) => "(d.created_at + 0)",
        (_, Driver::Attribute(_)) => "d.created_at",
        (Set::Everything(None), _) => "(i.created_at + 0)",
        _ => "i.created_at",
    }
}

/// An image's name, as the index over all images has it.
pub(super) const NAME_OF_ALL: &str = "(i.name_key || '')";

fn has_property(text: &mut Text, name: &str, values: &[String]) -> String {
    let name = text.bind(Arg::text(name));
    let values = text.bind_all(values);
    format!(
        "exists (select 1 from image_properties p where p.image_id = i.id \
         and p.name = {name} and p.value in ({values}))"
    )
}

fn sign_of(comparison: Comparison) -> &'static str {
    match comparison {
        Comparison::Equal => "=",
        Comparison::NotEqual => "<>",
        Comparison::Less => "<",
        Comparison::LessOrEqual => "<=",
        Comparison::Greater => ">",
        Comparison::GreaterOrEqual => ">=",
    }
}
