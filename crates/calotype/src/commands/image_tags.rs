//! `image tag`: the tags of images, by their keys.

use serde_json::{Map, Value, json};

use crate::cli::{FindArgs, ImageTagCommand};
use crate::client::Session;
use crate::exit::Failure;
use crate::output::{Output, Rows, cell};

/// Runs an `image tag` command.
pub(super) async fn run(
    command: ImageTagCommand,
    session: &Session,
    output: &Output,
) -> Result<(), Failure> {
    match command {
        ImageTagCommand::Add { image, tags } => {
            let id = session.find_image(&image).await?;
            let tags: Vec<Value> = tags.iter().map(|tag| tag_of(tag)).collect();
            session.add_image_tags(&id, &Value::Array(tags)).await
        }
        ImageTagCommand::Remove { image, keys } => {
            let id = session.find_image(&image).await?;
            for key in keys {
                session.remove_image_tag(&id, &key).await?;
            }
            Ok(())
        }
        ImageTagCommand::List { image: Some(image) } => {
            let id = session.find_image(&image).await?;
            output.result(&session.image_tags(&id).await?, table)
        }
        ImageTagCommand::List { image: None } => {
            output.result(&session.project_tags().await?, table_of_values)
        }
        ImageTagCommand::Find(args) => {
            let found = session.images_that_meet(&conditions(&args)).await?;
            output.result(&Value::Array(found), table_of_images)
        }
    }
}

/// What a request for images says of them.
fn conditions(args: &FindArgs) -> Map<String, Value> {
    let lists = [
        ("tags", &args.tags),
        ("tags_any", &args.any),
        ("not_tags", &args.not),
        ("not_tags_any", &args.not_any),
    ];
    let lists = lists.into_iter().filter(|(_, tags)| !tags.is_empty());
    let mut conditions: Map<_, _> = lists
        .map(|(name, tags)| (name.to_owned(), filters(tags)))
        .collect();
    if args.untagged {
        conditions.insert("without_any_tag".to_owned(), true.into());
    }
    let matches = [("resource_name", &args.name), ("resource_id", &args.id)];
    let matches = matches.into_iter().filter_map(|(key, value)| {
        let value = value.as_ref()?;
        Some(json!({"key": key, "value": value}))
    });
    let matches: Vec<Value> = matches.collect();
    if !matches.is_empty() {
        conditions.insert("matches".to_owned(), matches.into());
    }
    conditions
}

/// The keys, each with the values that it may have: none, where one of its tags has no value.
fn filters(tags: &[String]) -> Value {
    let mut filters: Vec<(&str, Vec<&str>, bool)> = Vec::new();
    for tag in tags {
        let (key, value) = match tag.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (tag.as_str(), None),
        };
        let at = match filters.iter().position(|(known, ..)| *known == key) {
            Some(at) => at,
            None => {
                filters.push((key, Vec::new(), false));
                filters.len() - 1
            }
        };
        let (_, values, any) = &mut filters[at];
        match value {
            Some(value) => values.push(value),
            None => *any = true,
        }
    }
    let filter = |(key, values, any): (&str, Vec<&str>, bool)| {
        let values = if any { Vec::new() } else { values };
        json!({"key": key, "values": values})
    };
    filters.into_iter().map(filter).collect()
}

fn tag_of(text: &str) -> Value {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    json!({"key": key, "value": value})
}

fn table(tags: &Value) -> Rows {
    let mut rows = Rows::new(&["KEY", "VALUE"]);
    for tag in tags.as_array().into_iter().flatten() {
        rows.push(["key", "value"].map(|name| cell(tag, name)));
    }
    rows
}

fn table_of_images(images: &Value) -> Rows {
    let mut rows = Rows::new(&["ID", "NAME"]);
    for image in images.as_array().into_iter().flatten() {
        rows.push(["resource_id", "resource_name"].map(|name| cell(image, name)));
    }
    rows
}

fn table_of_values(tags: &Value) -> Rows {
    let mut rows = Rows::new(&["KEY", "VALUES"]);
    for tag in tags.as_array().into_iter().flatten() {
        rows.push(["key", "values"].map(|name| cell(tag, name)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_ends_its_key_at_the_first_equals_sign() {
        for (text, key, value) in [("a", "a", ""), ("a=", "a", ""), ("a=b=c", "a", "b=c")] {
            assert_eq!(tag_of(text), json!({"key": key, "value": value}));
        }
    }

    #[test]
    fn a_projects_tags_are_listed_with_their_values() {
        let tags =
            json!([{"key": "env", "values": ["dev", "prod"]}, {"key": "web", "values": [""]}]);
        insta::assert_snapshot!(table_of_values(&tags).render(), @r"
        KEY  VALUES
        env  dev, prod
        web
        ");
    }
}
