//! `POST /v2/{project_id}/images/resource_instances/action`: finds or counts a project's images by their tags (spec
//! 2.11).

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::IntoResponse as _;
use calotype_core::access::Action;
use calotype_core::codes::ImsCode;
use calotype_core::image::Image;
use calotype_core::image_tag::Tag;
use calotype_core::ports::Window;
use calotype_core::query::{TagCondition, TagQuery, WantedTag};
use calotype_core::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::tags::{project, tag_document};
use crate::caller::Caller;
use crate::errors::Reply;
use crate::json_body::{
    json_object, malformed, optional_bool, optional_list, optional_text, read_body,
};
use crate::openapi::Decimal;
use crate::state::ApiState;

/// Keys that a list may have, and values that a key may have.
const MOST: usize = 10;
/// The longest key, in characters.
const LONGEST_KEY: usize = 128;
/// The longest value, in characters.
const LONGEST_VALUE: usize = 255;
/// The page that comes where no limit is given, and the largest.
const PAGE: (u64, u64) = (10, 1000);

/// A key of tags with the values that are wanted, for the API's description.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct KeyWithValues {
    /// At most 128 characters.
    pub key: String,
    /// At most 10, of at most 255 characters; without any, each value will do.
    pub values: Option<Vec<String>>,
}

/// What is asked of images beside their tags.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct Match {
    /// `resource_name` or `resource_id`.
    pub key: String,
    /// A part of the name (empty: images without one), or the whole id.
    pub value: String,
}

/// The body of a request that finds images by their tags.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct FindImagesByTags {
    /// `filter`, or `count`.
    pub action: String,
    /// Images that have each of these.
    pub tags: Option<Vec<KeyWithValues>>,
    /// Images that have one of these.
    pub tags_any: Option<Vec<KeyWithValues>>,
    /// Not images that have each of these.
    pub not_tags: Option<Vec<KeyWithValues>>,
    /// Not images that have one of these.
    pub not_tags_any: Option<Vec<KeyWithValues>>,
    /// Images without any tag; what the four lists say does not count then.
    pub without_any_tag: Option<bool>,
    /// How many at most, in decimal: 1 to 1000, 10 where it is absent.
    pub limit: Option<Decimal>,
    /// How many are passed over, in decimal.
    pub offset: Option<Decimal>,
    /// What is asked beside the tags.
    pub matches: Option<Vec<Match>>,
}

/// Finds the project's images by their tags, newest first, or counts them.
#[utoipa::path(
    post,
    path = "/v2/{project_id}/images/resource_instances/action",
    operation_id = "findImagesByTags",
    tag = "Image tags",
    params(("project_id" = String, Path, description = "The project that the credential is scoped to.")),
    request_body(content = FindImagesByTags, content_type = "application/json"),
    responses(
        (status = 200, description = "How many images there are, and a page of them."),
        (status = 400, description = "The request breaks a rule; the code says which."),
        (status = 401, description = "No credential, or not a good one (IMG.0087)."),
        (status = 403, description = "The caller may not list images (IMG.0026)."),
        (status = 503, description = "The service can't do it now (IMG.0061)."),
    ),
    security(("token" = []), ("signature" = [])),
)]
pub async fn find_images_by_tags(
    State(state): State<ApiState>,
    Caller(call): Caller,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Reply {
    state.service.admit(&call, Action::ImagesList)?;
    let mut body = json_object(&read_body(&state, body).await?)?;
    let owner = project(&state, &call, path)?;
    let counts = match optional_text(&mut body, "action")?.as_deref() {
        Some("count") => true,
        Some("filter") => false,
        _ => return Err(malformed("The action is filter or count.").into()),
    };
    let window = if counts {
        Window {
            offset: 0,
            limit: 0,
        }
    } else {
        window(&body)?
    };
    let query = TagQuery {
        owner,
        conditions: conditions(&mut body)?,
    };
    let found = state.service.find_by_tags(&call, &query, window).await?;
    let mut answer = json!({ "total_count": found.total });
    if !counts {
        let resources: Vec<Value> = found.items.iter().map(resource_document).collect();
        answer["resources"] = resources.into();
    }
    Ok(Json(answer).into_response())
}

fn resource_document(image: &Image) -> Value {
    let mut tags: Vec<Tag> = image.tags.iter().map(|text| Tag::of(text)).collect();
    tags.sort_unstable();
    let tags: Vec<Value> = tags.iter().map(tag_document).collect();
    json!({
        "resource_id": image.id.to_string(),
        "resource_name": image.name.as_deref().unwrap_or_default(),
        "resource_detail": { "status": image.status.as_str() },
        "tags": tags,
    })
}

fn window(body: &Map<String, Value>) -> Result<Window> {
    let limit = decimal(body, "limit")?.unwrap_or(PAGE.0);
    if !(1..=PAGE.1).contains(&limit) {
        return Err(malformed("The limit is 1 to 1000."));
    }
    let offset = decimal(body, "offset")?.unwrap_or(0);
    Ok(Window { offset, limit })
}

/// A number, or as the reference has it a text of digits.
fn decimal(body: &Map<String, Value>, name: &str) -> Result<Option<u64>> {
    let number = match body.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(number)) => number.as_u64(),
        Some(Value::String(text)) => text.parse().ok(),
        Some(_) => None,
    };
    let number = number.ok_or_else(|| malformed(&format!("The {name} is a decimal number.")));
    number.map(Some)
}

fn conditions(body: &mut Map<String, Value>) -> Result<Vec<TagCondition>> {
    let mut conditions = Vec::new();
    if optional_bool(body, "without_any_tag")? == Some(true) {
        conditions.push(TagCondition::Untagged);
    } else {
        type Make = fn(Vec<WantedTag>) -> TagCondition;
        let lists: [(&str, Make); 4] = [
            ("tags", TagCondition::All),
            ("tags_any", TagCondition::Any),
            ("not_tags", TagCondition::NotAll),
            ("not_tags_any", TagCondition::NotAny),
        ];
        for (name, make) in lists {
            let wanted = wanted_tags(&optional_list(body, name)?.unwrap_or_default())?;
            if !wanted.is_empty() {
                conditions.push(make(wanted));
            }
        }
    }
    if let Some(matches) = optional_list(body, "matches")? {
        conditions.extend(matched(&matches)?);
    }
    Ok(conditions)
}

fn wanted_tags(list: &[Value]) -> Result<Vec<WantedTag>> {
    let wanted: Result<Vec<WantedTag>> = list.iter().map(wanted_tag).collect();
    let wanted = wanted?;
    let keys: Vec<&str> = wanted.iter().map(|wanted| wanted.key.as_str()).collect();
    if keys.len() > MOST || has_twice(keys) {
        return Err(Error::ims(ImsCode::IMG_0115));
    }
    Ok(wanted)
}

fn wanted_tag(object: &Value) -> Result<WantedTag> {
    let text = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| malformed("Keys and values of tags are strings."))
    };
    let object = object
        .as_object()
        .ok_or_else(|| malformed("A tag is an object with a key and values."))?;
    let key = object.get("key").map_or_else(|| Ok(String::new()), text)?;
    let values: Vec<String> = match object.get("values") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(values)) => values.iter().map(text).collect::<Result<_>>()?,
        Some(_) => return Err(malformed("The values of a tag are a list.")),
    };
    let bad = key.trim().is_empty()
        || is_bad(&key, LONGEST_KEY)
        || values.len() > MOST
        || values.iter().any(|value| is_bad(value, LONGEST_VALUE))
        || has_twice(values.iter().map(String::as_str).collect());
    if bad {
        return Err(Error::ims(ImsCode::IMG_0115));
    }
    Ok(WantedTag { key, values })
}

fn matched(list: &[Value]) -> Result<Vec<TagCondition>> {
    let bad = || malformed("A match has the key resource_name or resource_id, once, and a value.");
    let text = |object: &Value, name: &str| object[name].as_str().map(str::to_owned);
    if list.is_empty() {
        return Err(bad());
    }
    let mut conditions = Vec::new();
    let mut keys = Vec::new();
    for object in list {
        let key = text(object, "key").ok_or_else(bad)?;
        let value = text(object, "value").ok_or_else(bad)?;
        if is_bad(&value, LONGEST_VALUE) || keys.contains(&key) {
            return Err(bad());
        }
        conditions.push(match key.as_str() {
            "resource_name" => TagCondition::Name(value),
            "resource_id" => value
                .parse()
                .map_or(TagCondition::Nothing, TagCondition::Id),
            _ => return Err(bad()),
        });
        keys.push(key);
    }
    Ok(conditions)
}

fn is_bad(text: &str, longest: usize) -> bool {
    text.contains('\0') || text.chars().count() > longest
}

fn has_twice(mut texts: Vec<&str>) -> bool {
    texts.sort_unstable();
    texts.windows(2).any(|pair| pair.first() == pair.last())
}
