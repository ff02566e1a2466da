//! `GET /v2/cloudimages`: the parameters of spec 8.1. Unknown ones match a property exactly, or are ignored where
//! clients send them for something else; they never fail.

use calotype_core::image::ImageStatus;
use calotype_core::query::Condition;

use super::{BadParameter, Listing, Params};

/// The page's length where none is asked for, in images (spec 8.1).
pub const DEFAULT_LIMIT: u32 = 500;

/// What the parameters ask for.
///
/// # Errors
/// The first value that its parameter does not have (IMG.0001).
pub fn listing(params: &Params) -> Result<Listing, BadParameter> {
    let mut conditions = Vec::new();
    for (name, value) in params.last_of_each() {
        filter(name, value, &mut conditions)?;
    }
    // Hiding is the native API's. A client that asks for one image by its id must find it.
    if params.last("os_hidden").is_none() && params.last("id").is_none() {
        conditions.push(Condition::Hidden(false));
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

fn filter(name: &str, value: &str, conditions: &mut Vec<Condition>) -> Result<(), BadParameter> {
    let bad = || BadParameter::value(name);
    let condition = match name {
        "limit" | "marker" | "sort" | "sort_key" | "sort_dir" | "tag" | "created_at"
        | "updated_at" | "visibility" | "member_status" => return Ok(()),
        // Sent by clients for what has no meaning here.
        "page" | "offset" | "flavor_id" => return Ok(()),
        "id" => Condition::Id(vec![value.parse().map_err(|_| bad())?]),
        "status" => status(value).ok_or_else(bad)?,
        "name" => Condition::Name(vec![value.to_owned()]),
        "owner" => Condition::Owner(value.parse().map_err(|_| bad())?),
        "disk_format" => Condition::DiskFormat(vec![value.to_owned()]),
        "container_format" => Condition::ContainerFormat(vec![value.to_owned()]),
        "protected" => Condition::Protected(boolean(value).ok_or_else(bad)?),
        "os_hidden" => Condition::Hidden(boolean(value).ok_or_else(bad)?),
        "min_disk" => super::exact_number(name, value, Condition::MinDisk)?,
        "min_ram" => super::exact_number(name, value, Condition::MinRam)?,
        "size_min" => {
            conditions.extend(super::size_min(name, value)?);
            return Ok(());
        }
        "size_max" => super::size_max(name, value)?,
        "enterprise_project_id" if value == "all_granted_eps" => return Ok(()),
        "enterprise_project_id" => Condition::EnterpriseProject(value.parse().map_err(|_| bad())?),
        "__whole_image" => {
            let whole = if boolean(value).ok_or_else(bad)? {
                "true"
            } else {
                "false"
            };
            conditions.extend(super::computed_or_property(name, whole));
            return Ok(());
        }
        "__imagetype" if !["gold", "private", "shared"].contains(&value) => return Err(bad()),
        _ => {
            conditions.extend(super::computed_or_property(name, value));
            return Ok(());
        }
    };
    conditions.push(condition);
    Ok(())
}

fn boolean(text: &str) -> Option<bool> {
    text.to_ascii_lowercase().parse().ok()
}

/// A status of an image that can be listed, or one that exists and never is.
fn status(text: &str) -> Option<Condition> {
    match text {
        "deleted" | "pending_delete" | "importing" | "uploading" => Some(Condition::Nothing),
        _ => text
            .parse::<ImageStatus>()
            .ok()
            .map(|status| Condition::Status(vec![status])),
    }
}
