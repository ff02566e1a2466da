//! The query strings of the image lists, read into [`ImageQuery`]s.
//!
//! Both APIs share the alphabet (decoding, limits, sort keys, times, attributes that are computed rather than
//! stored) and differ in what they tolerate: [`native`] follows Glance, [`ims`] follows spec 8. No input can make
//! the parsers fail other than by a [`BadParameter`], and the work is bounded by the number of parameters and of
//! list items.
//!
//! Where a parameter that means one thing is repeated, its last value counts, as in Glance; `tag`, `created_at` and
//! `updated_at` hold all at once.

pub mod described;
pub mod ims;
pub mod native;

use calotype_core::id::{EnterpriseProjectId, ImageId, KeyId};
use calotype_core::image::{MemberStatus, Visibility};
use calotype_core::query::{
    Comparison, Condition, Direction, ImageQuery, SortKey, Viewer, Visible, WantedMembership,
};
use calotype_core::size::ByteSize;
use calotype_core::time::Timestamp;
use percent_encoding::percent_decode;
use std::time::Duration;

/// Parameters that a query may have.
const MAX_PARAMETERS: usize = 100;
/// Items that an `in:` list may have.
const MAX_LIST_ITEMS: usize = 1000;
/// The largest page, in images; larger limits are lowered to it (spec 8.4).
pub const MAX_LIMIT: u32 = 1000;

/// A parameter that can't be understood. The text is for the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadParameter(pub String);

impl BadParameter {
    fn value(name: &str) -> Self {
        Self(format!("Invalid value for the parameter '{name}'."))
    }
}

/// The parameters of a query string, decoded, in their order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Params(Vec<(String, String)>);

impl FromIterator<(String, String)> for Params {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl Params {
    /// Decodes a query string: `+` and `%20` are spaces, other percent-escapes are UTF-8 (the URL standard's
    /// `application/x-www-form-urlencoded`).
    ///
    /// # Errors
    /// More than 100 parameters, bytes that are no UTF-8, and NUL characters.
    pub fn parse(query: Option<&str>) -> Result<Self, BadParameter> {
        let mut pairs = Vec::new();
        let parts = query.unwrap_or_default().split('&');
        for part in parts.filter(|part| !part.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(BadParameter("There are too many parameters.".to_owned()));
            }
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            pairs.push((decode(name)?, decode(value)?));
        }
        Ok(Self(pairs))
    }

    /// The parameters in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Every value of a parameter, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.iter()
            .filter(move |(other, _)| *other == name)
            .map(|(_, value)| value)
    }

    /// The value of a parameter that counts: the last.
    pub fn last(&self, name: &str) -> Option<&str> {
        let pair = self.0.iter().rev().find(|(other, _)| other == name);
        pair.map(|(_, value)| value.as_str())
    }

    /// Each parameter once, with the value that counts.
    fn last_of_each(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.iter().enumerate();
        pairs
            .filter(|(at, (name, _))| !self.iter().skip(at + 1).any(|(later, _)| later == *name))
            .map(|(_, pair)| pair)
    }
}

fn decode(text: &str) -> Result<String, BadParameter> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode(spaced.as_bytes())
        .decode_utf8()
        .map_err(|_| BadParameter("The query is not UTF-8.".to_owned()))?;
    if decoded.contains('\0') {
        return Err(BadParameter("The query has a NUL character.".to_owned()));
    }
    Ok(decoded.into_owned())
}

/// What a list request asks for, before it is known who asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Which of the visible images.
    pub visible: Visible,
    /// Under which status those shared with the viewer.
    pub membership: WantedMembership,
    /// What they must meet.
    pub conditions: Vec<Condition>,
    /// Their order.
    pub order: Vec<(SortKey, Direction)>,
    /// The image after which the page begins.
    pub marker: Option<ImageId>,
    /// How many at most.
    pub limit: u32,
}

impl Listing {
    /// The question with the asker's eyes.
    pub fn seen_by(self, viewer: Viewer) -> ImageQuery {
        ImageQuery {
            viewer,
            visible: self.visible,
            membership: self.membership,
            conditions: self.conditions,
            order: self.order,
            marker: self.marker,
            limit: self.limit,
        }
    }
}

/// A page's length: not negative, lowered to [`MAX_LIMIT`].
fn limit(params: &Params, default: u32) -> Result<u32, BadParameter> {
    let Some(text) = params.last("limit") else {
        return Ok(default);
    };
    let text = text.trim();
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BadParameter(
            "The parameter 'limit' must be an integer that is not negative.".to_owned(),
        ));
    }
    // What overflows is larger than any page.
    Ok(digits.parse().unwrap_or(MAX_LIMIT).min(MAX_LIMIT))
}

fn marker(params: &Params) -> Result<Option<ImageId>, BadParameter> {
    params
        .last("marker")
        .map(|text| text.parse().map_err(|_| BadParameter::value("marker")))
        .transpose()
}

/// Glance's two notations: `sort_key` and `sort_dir`, repeated, or `sort=key:direction,...`.
fn order(params: &Params) -> Result<Vec<(SortKey, Direction)>, BadParameter> {
    let mut order = Vec::new();
    let keys: Vec<_> = params.all("sort_key").collect();
    let directions: Vec<_> = params.all("sort_dir").collect();
    if let Some(sort) = params.last("sort") {
        if !keys.is_empty() || !directions.is_empty() {
            return Err(BadParameter(
                "Old and new sorting syntax cannot be combined.".to_owned(),
            ));
        }
        for part in sort.split(',') {
            let (key, direction) = part.split_once(':').unwrap_or((part, "desc"));
            order.push((sort_key(key)?, sort_direction(direction)?));
        }
    } else {
        if directions.len() > 1 && directions.len() != keys.len() {
            return Err(BadParameter(
                "The number of sort directions does not match the number of sort keys.".to_owned(),
            ));
        }
        let keys = if keys.is_empty() {
            vec!["created_at"]
        } else {
            keys
        };
        for (at, key) in keys.into_iter().enumerate() {
            let direction = directions.get(at).or(directions.first());
            let direction = direction.map_or(Ok(Direction::Descending), |d| sort_direction(d))?;
            order.push((sort_key(key)?, direction));
        }
    }
    // A key that comes again can't change the order any more.
    let mut seen = Vec::new();
    order.retain(|(key, _)| {
        let new = !seen.contains(key);
        seen.push(*key);
        new
    });
    Ok(order)
}

fn sort_key(text: &str) -> Result<SortKey, BadParameter> {
    match text.trim() {
        "id" => Ok(SortKey::Id),
        "name" => Ok(SortKey::Name),
        "status" => Ok(SortKey::Status),
        "container_format" => Ok(SortKey::ContainerFormat),
        "disk_format" => Ok(SortKey::DiskFormat),
        "size" => Ok(SortKey::Size),
        "created_at" => Ok(SortKey::CreatedAt),
        "updated_at" => Ok(SortKey::UpdatedAt),
        "min_disk" => Ok(SortKey::MinDisk),
        "min_ram" => Ok(SortKey::MinRam),
        _ => Err(BadParameter("Invalid sort key.".to_owned())),
    }
}

fn sort_direction(text: &str) -> Result<Direction, BadParameter> {
    match text.trim() {
        "asc" => Ok(Direction::Ascending),
        "desc" => Ok(Direction::Descending),
        _ => Err(BadParameter("Invalid sort direction.".to_owned())),
    }
}

fn membership(params: &Params) -> Result<WantedMembership, BadParameter> {
    match params.last("member_status") {
        None => Ok(WantedMembership::Is(MemberStatus::Accepted)),
        Some("all") => Ok(WantedMembership::Any),
        Some(word) => match word.parse() {
            Ok(status) => Ok(WantedMembership::Is(status)),
            Err(_) => Err(BadParameter::value("member_status")),
        },
    }
}

fn visible(params: &Params) -> Result<Visible, BadParameter> {
    match params.last("visibility") {
        None | Some("") => Ok(Visible::Default),
        Some("all") => Ok(Visible::All),
        Some(word) => match word.parse() {
            Ok(visibility) => Ok(Visible::Only(visibility)),
            Err(_) => Err(BadParameter::value("visibility")),
        },
    }
}

/// The conditions of every `created_at` and `updated_at` (spec 8.2).
fn times(params: &Params, conditions: &mut Vec<Condition>) -> Result<(), BadParameter> {
    type Make = fn(Comparison, Timestamp) -> Condition;
    let fields: [(&str, Make); 2] = [
        ("created_at", Condition::CreatedAt),
        ("updated_at", Condition::UpdatedAt),
    ];
    for (name, make) in fields {
        for value in params.all(name) {
            let (comparison, instant) =
                comparison(value).ok_or_else(|| BadParameter::value(name))?;
            for (comparison, instant) in as_shown(comparison, instant) {
                conditions.push(make(comparison, instant));
            }
        }
    }
    Ok(())
}

fn comparison(value: &str) -> Option<(Comparison, Timestamp)> {
    // A bare time has colons of its own.
    if let Some(instant) = Timestamp::parse(value) {
        return Some((Comparison::Equal, instant));
    }
    let (operator, text) = value.split_once(':')?;
    let comparison = match operator {
        "eq" => Comparison::Equal,
        "neq" => Comparison::NotEqual,
        "lt" => Comparison::Less,
        "lte" => Comparison::LessOrEqual,
        "gt" => Comparison::Greater,
        "gte" => Comparison::GreaterOrEqual,
        _ => return None,
    };
    Some((comparison, Timestamp::parse(text)?))
}

/// Images show their times in whole seconds and have them in microseconds. A bound without a fraction is compared
/// with what is shown, so that `eq:` finds an image by the time that its document has, and `gt:` does not find it.
/// `neq:` alone compares exactly: it would need an "or".
fn as_shown(comparison: Comparison, instant: Timestamp) -> Vec<(Comparison, Timestamp)> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    if instant.as_micros() % 1_000_000 != 0 {
        return vec![(comparison, instant)];
    }
    let next = instant.plus(Duration::from_secs(1));
    match comparison {
        Equal => vec![(GreaterOrEqual, instant), (Less, next)],
        LessOrEqual => vec![(Less, next)],
        Greater => vec![(GreaterOrEqual, next)],
        Less | GreaterOrEqual | NotEqual => vec![(comparison, instant)],
    }
}

fn tags(params: &Params, conditions: &mut Vec<Condition>) {
    for tag in params.all("tag") {
        conditions.push(Condition::Tag(tag.trim().to_owned()));
    }
}

/// A whole number in a filter; negative ones are allowed and lie below everything.
fn number(name: &str, value: &str) -> Result<i64, BadParameter> {
    value
        .trim()
        .parse()
        .map_err(|_| BadParameter(format!("The parameter '{name}' must be an integer.")))
}

fn size_min(name: &str, value: &str) -> Result<Option<Condition>, BadParameter> {
    let bound = u64::try_from(number(name, value)?).ok();
    Ok(bound.map(|bytes| Condition::SizeMin(ByteSize::new(bytes))))
}

fn size_max(name: &str, value: &str) -> Result<Condition, BadParameter> {
    let bound = u64::try_from(number(name, value)?).ok();
    Ok(bound.map_or(Condition::Nothing, |bytes| {
        Condition::SizeMax(ByteSize::new(bytes))
    }))
}

fn exact_number(
    name: &str,
    value: &str,
    make: fn(u32) -> Condition,
) -> Result<Condition, BadParameter> {
    let wanted = u32::try_from(number(name, value)?).ok();
    Ok(wanted.map_or(Condition::Nothing, make))
}

/// The conditions for an attribute that an image's document shows but that no property holds, or whose absence
/// means a value (spec 4.1 and 8.1). None for an attribute that is an ordinary property.
fn computed(name: &str, value: &str) -> Option<Vec<Condition>> {
    let lacks = |values: &[&str]| {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        vec![Condition::NotProperty(name.to_owned(), values)]
    };
    let conditions = match (name, value) {
        ("__imagetype", "gold") => vec![Condition::Visibility(Visibility::Public)],
        ("__imagetype", "private") => vec![Condition::Visibility(Visibility::Private)],
        ("__imagetype", "shared") => vec![Condition::Visibility(Visibility::Shared)],
        ("__isregistered", "true") | ("__image_source_type", "uds") => Vec::new(),
        ("__imagetype" | "__isregistered" | "__image_source_type", _) => vec![Condition::Nothing],
        ("__whole_image", "false") => lacks(&["true"]),
        ("virtual_env_type", "FusionCompute") => lacks(&["Ironic", "DataImage", "IsoImage"]),
        ("__system__cmkid", key) => {
            let key = key.parse::<KeyId>().map(Condition::Key);
            vec![key.unwrap_or(Condition::Nothing)]
        }
        ("enterprise_project_id", id) => {
            let id = id.parse::<EnterpriseProjectId>();
            vec![id.map_or(Condition::Nothing, Condition::EnterpriseProject)]
        }
        _ => return None,
    };
    Some(conditions)
}

fn computed_or_property(name: &str, value: &str) -> Vec<Condition> {
    computed(name, value)
        .unwrap_or_else(|| vec![Condition::Property(name.to_owned(), value.to_owned())])
}

#[cfg(test)]
mod tests;
