//! `GET /v2/images`: Glance's parameters.

use calotype_core::image::ImageStatus;
use calotype_core::query::Condition;

use super::{BadParameter, Listing, MAX_LIST_ITEMS, Params};

/// The page's length where none is asked for, in images (Glance's default).
pub const DEFAULT_LIMIT: u32 = 25;

/// What the parameters ask for.
///
/// # Errors
/// The first parameter that Glance too would refuse.
pub fn listing(params: &Params) -> Result<Listing, BadParameter> {
    let mut conditions = vec![Condition::Hidden(hidden(params)?)];
    for (name, value) in params.last_of_each() {
        filter(name, value, &mut conditions)?;
    }
    super::tags(params, &mut conditions);
    super::times(params, &mut conditions)?;
    Ok(Listing {
        visible: super::visible(params)?,
        membership: super::membership(params)?,
        conditions,
        order: super::order(params)?,
        marker: super::marker(params)?,
        limit: super::limit(params, DEFAULT_LIMIT)?,
    })
}

fn hidden(params: &Params) -> Result<bool, BadParameter> {
    match params.last("os_hidden").map(str::to_ascii_lowercase) {
        None => Ok(false),
        Some(word) => word.parse().map_err(|_| BadParameter::value("os_hidden")),
    }
}

fn filter(name: &str, value: &str, conditions: &mut Vec<Condition>) -> Result<(), BadParameter> {
    let condition = match name {
        "limit" | "marker" | "sort" | "sort_key" | "sort_dir" | "tag" | "created_at"
        | "updated_at" | "visibility" | "member_status" | "os_hidden" => return Ok(()),
        "changes-since" => {
            return Err(BadParameter(
                "The 'changes-since' filter is not available.".to_owned(),
            ));
        }
        "id" => one_of(parsed(&listed(name, value)?), Condition::Id),
        "status" => one_of(
            parsed::<ImageStatus>(&listed(name, value)?),
            Condition::Status,
        ),
        "name" => Condition::Name(listed(name, value)?),
        "disk_format" => Condition::DiskFormat(listed(name, value)?),
        "container_format" => Condition::ContainerFormat(listed(name, value)?),
        "owner" => value.parse().map_or(Condition::Nothing, Condition::Owner),
        "checksum" => Condition::Checksum(value.to_owned()),
        "os_hash_value" => Condition::OsHashValue(value.to_owned()),
        "protected" => match value {
            "true" => Condition::Protected(true),
            "false" => Condition::Protected(false),
            _ => return Err(BadParameter::value(name)),
        },
        "min_disk" => super::exact_number(name, value, Condition::MinDisk)?,
        "min_ram" => super::exact_number(name, value, Condition::MinRam)?,
        "size" => {
            conditions.extend(super::size_min(name, value)?);
            super::size_max(name, value)?
        }
        "size_min" => {
            conditions.extend(super::size_min(name, value)?);
            return Ok(());
        }
        "size_max" => super::size_max(name, value)?,
        _ => {
            conditions.extend(super::computed_or_property(name, value));
            return Ok(());
        }
    };
    conditions.push(condition);
    Ok(())
}

/// A value with Glance's operators: `in:a,"b,c"`, `eq:a`, or a bare value. A bare value with a colon needs `eq:`.
fn listed(name: &str, value: &str) -> Result<Vec<String>, BadParameter> {
    match value.split_once(':') {
        None => Ok(vec![value.to_owned()]),
        Some(("eq", value)) => Ok(vec![value.to_owned()]),
        Some(("in", list)) => split_list(name, list),
        Some(_) => Err(BadParameter(format!(
            "The parameter '{name}' has an unknown operator; write eq: before a value with a colon."
        ))),
    }
}

/// Items between commas; one with a comma stands in double quotes, inside which a backslash protects the next
/// character (the API working group's rule that Glance follows).
fn split_list(name: &str, list: &str) -> Result<Vec<String>, BadParameter> {
    let misquoted = || BadParameter(format!("The parameter '{name}' is not quoted properly."));
    let mut items = Vec::new();
    let mut rest = list.chars().peekable();
    loop {
        if items.len() == MAX_LIST_ITEMS {
            return Err(BadParameter(format!(
                "The parameter '{name}' lists too many values."
            )));
        }
        let mut item = String::new();
        let quoted = rest.next_if_eq(&'"').is_some();
        loop {
            match rest.next() {
                Some('\\') if quoted => item.extend(rest.next()),
                Some('\\') if rest.peek() == Some(&'"') => item.extend(rest.next()),
                Some('"') if quoted => {
                    items.push(item);
                    match rest.next() {
                        None => return Ok(items),
                        Some(',') => break,
                        Some(_) => return Err(misquoted()),
                    }
                }
                Some('"') => return Err(misquoted()),
                Some(',') if !quoted => {
                    items.push(item);
                    break;
                }
                Some(other) => item.push(other),
                None if quoted => return Err(misquoted()),
                None => {
                    items.push(item);
                    return Ok(items);
                }
            }
        }
    }
}

/// The words that are values; the others can't match anything.
fn parsed<T: std::str::FromStr>(words: &[String]) -> Vec<T> {
    words.iter().filter_map(|word| word.parse().ok()).collect()
}

fn one_of<T>(values: Vec<T>, make: fn(Vec<T>) -> Condition) -> Condition {
    if values.is_empty() {
        Condition::Nothing
    } else {
        make(values)
    }
}
