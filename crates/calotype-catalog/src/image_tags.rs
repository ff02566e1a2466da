//! Images by their tags, and the tags of images.
//!
//! A tag is one text, `key=value` or the key alone. Texts are compared byte by byte on both engines, so that the tags of
//! a key are the key itself and what lies from `key=` up to `key>`, the next text that does not begin so: the index on
//! `(owner, tag)` and the primary key `(image_id, tag)` find them.

use calotype_core::Result;
use calotype_core::id::ProjectId;
use calotype_core::image::Image;
use calotype_core::ports::{Page, Window};
use calotype_core::query::{ImageQuery, TagCondition, TagQuery, WantedTag};

use crate::db::{Arg, Db, Engine};
use crate::list::{KEYS, KnownImages, Text, page_of, start_of};
use crate::rows::{image_column, image_of};

/// The texts of the tags of a project's images, sorted, each once.
pub(crate) async fn project_tags(db: &Db, project: &ProjectId) -> Result<Vec<String>> {
    let sql = "select distinct tag from image_tags where owner = $1 order by tag";
    let rows = db
        .fetch_all(sql.to_owned(), vec![Arg::text(project)])
        .await?;
    rows.iter().map(|row| row.text("tag")).collect()
}

/// The first texts of the tags of the images that a query finds, sorted, each once. The query's limit counts them.
pub(crate) async fn tags_of_images(
    db: &Db,
    known: &KnownImages,
    query: &ImageQuery,
) -> Result<Vec<String>> {
    let every_image = ImageQuery {
        limit: u32::MAX,
        ..query.clone()
    };
    let start = start_of(db, known, query).await?;
    let Some(mut page) = page_of(&every_image, start, KEYS) else {
        return Ok(Vec::new());
    };
    let limit = page.text.bind(i64::from(query.limit).into());
    let sql = format!(
        "select distinct t.tag from ({}) as page cross join image_tags t \
         where t.image_id = page.k{} order by t.tag limit {limit}",
        page.sql, page.id
    );
    let rows = db.fetch_all(sql, page.text.args).await?;
    rows.iter().map(|row| row.text("tag")).collect()
}

/// A part of the images that a query finds, newest first, and how many there are.
pub(crate) async fn find_by_tags(db: &Db, query: &TagQuery, window: Window) -> Result<Page<Image>> {
    let mut text = Text::default();
    let owner = text.bind(Arg::text(&query.owner));
    let mut wheres = vec![format!("i.owner = {owner}")];
    let engine = db.engine();
    for condition in &query.conditions {
        wheres.push(meets(&mut text, condition, engine));
    }
    let wheres = wheres.join(" and ");
    // One state of the database for both.
    let mut tx = db.read().await?;
    let count = format!("select count(*) as total from images i where {wheres}");
    let total = match tx.fetch_optional(count, text.args.clone()).await? {
        Some(row) => row.count("total")?,
        None => 0,
    };
    if window.limit == 0 || window.offset >= total {
        return Ok(Page {
            items: Vec::new(),
            total,
        });
    }
    let limit = text.bind(Arg::count(window.limit));
    let offset = text.bind(Arg::count(window.offset));
    let sql = format!(
        "select {} from images i where {wheres} \
         order by i.created_at desc, i.id desc limit {limit} offset {offset}",
        image_column(engine)
    );
    let rows = tx.fetch_all(sql, text.args).await?;
    Ok(Page {
        items: rows.iter().map(image_of).collect::<Result<_>>()?,
        total,
    })
}

fn meets(text: &mut Text, condition: &TagCondition, engine: Engine) -> String {
    // The first word is what holds of no tag at all.
    let mut each = |wanted: &[WantedTag], first: &str, by: &str| {
        let has = wanted.iter().map(|wanted| has_tag(text, wanted));
        let all: Vec<String> = std::iter::once(first.to_owned()).chain(has).collect();
        format!("({})", all.join(by))
    };
    match condition {
        TagCondition::All(wanted) => each(wanted, "true", " and "),
        TagCondition::Any(wanted) => each(wanted, "false", " or "),
        TagCondition::NotAll(wanted) => format!("not {}", each(wanted, "true", " and ")),
        TagCondition::NotAny(wanted) => format!("not {}", each(wanted, "false", " or ")),
        TagCondition::Untagged => {
            "not exists (select 1 from image_tags t where t.image_id = i.id)".to_owned()
        }
        TagCondition::Name(part) if part.is_empty() => "i.name_key = ''".to_owned(),
        TagCondition::Name(part) => {
            let function = match engine {
                Engine::Sqlite => "instr",
                Engine::Postgres => "strpos",
            };
            format!("{function}(i.name_key, {}) > 0", text.bind(Arg::text(part)))
        }
        TagCondition::Id(id) => format!("i.id = {}", text.bind(Arg::text(id))),
        TagCondition::Nothing => "false".to_owned(),
    }
}

/// That an image has a tag of this key, with one of these values where there are any.
fn has_tag(text: &mut Text, wanted: &WantedTag) -> String {
    let WantedTag { key, values } = wanted;
    // A key ends at the first `=`.
    if key.contains('=') {
        return "false".to_owned();
    }
    let tag = if values.is_empty() {
        let (alone, from, to) = (
            text.bind(Arg::text(key)),
            text.bind(Arg::text(format!("{key}="))),
            text.bind(Arg::text(format!("{key}>"))),
        );
        format!("(t.tag = {alone} or (t.tag >= {from} and t.tag < {to}))")
    } else {
        let mut texts: Vec<String> = values
            .iter()
            .map(|value| format!("{key}={value}"))
            .collect();
        if values.iter().any(String::is_empty) {
            texts.push(key.clone());
        }
        format!("t.tag in ({})", text.bind_all(&texts))
    };
    format!("exists (select 1 from image_tags t where t.image_id = i.id and {tag})")
}
