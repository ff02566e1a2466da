//! The page that the measurements make: a section for each kind of deployment, of which each says when and where it was
//! measured.

use std::path::Path;

const HEAD: &str = "\
# Performance

Written by `cargo xtask bench`, and the second section by `cargo xtask bench --engines` too. It measures the release binary on
the machine that it runs on, over loopback. What is measured against is measured in the same run; the ratio is the first divided
by the second. Whole images are the best of several rounds, ours and others'.
";

/// Puts a section into the page, in the place of the one that has its title.
pub(crate) fn put(title: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance.md");
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    let mut sections: Vec<(String, String)> = page.split("\n## ").skip(1).map(parted).collect();
    let section = (title.to_owned(), text.trim().to_owned());
    match sections.iter_mut().find(|(other, _)| other == title) {
        Some(old) => *old = section,
        None => sections.push(section),
    }
    let mut page = HEAD.to_owned();
    for (title, text) in &sections {
        page.push_str(&format!("\n## {title}\n\n{text}\n"));
    }
    std::fs::write(path, page).expect("docs/performance.md can be written");
}

fn parted(section: &str) -> (String, String) {
    let (title, text) = section.split_once('\n').unwrap_or((section, ""));
    (title.to_owned(), text.trim().to_owned())
}
