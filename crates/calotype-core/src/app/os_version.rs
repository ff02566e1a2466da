//! What an operating system's version, as `__os_version` tells it, says of the system (spec 4.6).
//!
//! A version need not be in the catalogue: it is matched by how the catalogue's strings begin, so that a release that is newer than the catalogue
//! is told apart as its elders are.

use std::collections::BTreeMap;

/// The property that tells the version.
pub(crate) const OS_VERSION: &str = "__os_version";

/// The version of an image that names none, under OTC's profile.
pub(crate) const DEFAULT_OS_VERSION: &str = "Other Linux(64 bit)";

/// How the strings of a platform begin, and the platform.
const PLATFORMS: &[(&str, &str)] = &[
    ("Windows", "Windows"),
    ("SUSE Linux", "SUSE"),
    ("Oracle Linux", "Oracle Linux"),
    ("Redhat", "Red Hat"),
    ("Ubuntu", "Ubuntu"),
    ("openSUSE", "OpenSUSE"),
    ("CentOS", "CentOS"),
    ("Debian", "Debian"),
    ("Fedora", "Fedora"),
    ("EulerOS", "EulerOS"),
    ("CoreOS", "CoreOS"),
    ("openEuler", "openEuler"),
];

/// A version of the catalogue, and what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OsVersion {
    /// The platform: `__platform`.
    pub platform: &'static str,
    /// The version: `__os_version`.
    pub version: String,
    /// The type: `__os_type`.
    pub system: &'static str,
    /// The width in bits: `__os_bit`.
    pub bits: u32,
}

/// The catalogue: what comes before the releases, the releases, what comes after them.
const CATALOGUE: &[(&str, &[&str], &str)] = &[
    ("Windows ", &["10"], " 64bit"),
    ("Windows 7 ", &["Enterprise", "Professional"], " 64bit"),
    ("Windows 7 ", &["Professional"], " 32bit"),
    (
        "Windows Server 2016 ",
        &["Standard", "Datacenter"],
        " 64bit",
    ),
    (
        "Windows Server 2012 R2 ",
        &["Standard", "Datacenter"],
        " 64bit",
    ),
    (
        "Windows Server 2012 ",
        &["Essentials R2", "Standard", "Datacenter"],
        " 64bit",
    ),
    (
        "Windows Server 2008 R2 ",
        &["WEB", "Standard", "Enterprise", "Datacenter"],
        " 64bit",
    ),
    (
        "SUSE Linux Enterprise Server ",
        &[
            "15 SP1", "15", "12 SP5", "12 SP4", "12 SP3", "12 SP2", "12 SP1", "12", "11 SP4",
            "11 SP3", "11 SP1",
        ],
        " 64bit",
    ),
    ("SUSE Linux Enterprise Server ", &["11 SP3"], " 32bit"),
    (
        "Oracle Linux Server release ",
        &[
            "7.6", "7.5", "7.4", "7.3", "7.2", "7.1", "7.0", "6.10", "6.9", "6.8", "6.7", "6.5",
        ],
        " 64bit",
    ),
    (
        "Redhat Linux Enterprise ",
        &[
            "8.0", "7.5", "7.4", "7.3", "7.2", "7.1", "7.0", "6.10", "6.9", "6.8", "6.7", "6.6",
            "6.5", "6.4",
        ],
        " 64bit",
    ),
    // The one that is written otherwise.
    ("Redhat ", &["7.6"], " 64bit"),
    ("Redhat Linux Enterprise ", &["6.6", "6.4"], " 32bit"),
    (
        "Ubuntu ",
        &["19.04", "18.04", "16.04", "14.04.5"],
        " server 64bit",
    ),
    ("Ubuntu ", &["16.04.3", "16.04.2"], " Server 64bit"),
    (
        "Ubuntu ",
        &["14.04.4", "14.04.3", "14.04.1", "14.04"],
        " server 64bit",
    ),
    (
        "Ubuntu ",
        &["14.04.4", "14.04.3", "14.04.1", "14.04"],
        " server 32bit",
    ),
    (
        "openSUSE ",
        &["42.3", "42.2", "42.1", "15.1", "15.0", "13.2", "11.3"],
        " 64bit",
    ),
    (
        "CentOS ",
        &[
            "8.0", "7.7", "7.6", "7.5", "7.4", "7.3", "7.2", "7.1", "7.0", "6.10", "6.9", "6.8",
            "6.7", "6.6", "6.5", "6.4", "6.3",
        ],
        " 64bit",
    ),
    (
        "CentOS ",
        &["7.0", "6.10", "6.9", "6.7", "6.6", "6.5", "6.4", "6.3"],
        " 32bit",
    ),
    (
        "Debian GNU/Linux ",
        &[
            "10.0.0", "9.3.0", "9.0.0", "8.10.0", "8.8.0", "8.7.0", "8.6.0", "8.5.0", "8.4.0",
            "8.2.0", "8.1.0",
        ],
        " 64bit",
    ),
    (
        "Fedora ",
        &["30", "29", "28", "27", "26", "25", "24", "23", "22"],
        " 64bit",
    ),
    ("EulerOS ", &["2.9", "2.5", "2.3", "2.2", "2.1"], " 64bit"),
    ("CoreOS ", &["1068.10.0", "1010.5.0", "1298.6.0"], ""),
    ("openEuler ", &["20.03"], " 64bit"),
    ("Other", &[" Linux(64 bit)", "(32 bit)"], ""),
];

/// The versions of the catalogue, platform by platform.
pub fn catalogue() -> Vec<OsVersion> {
    let rows = CATALOGUE.iter();
    rows.flat_map(|(before, releases, after)| {
        releases.iter().map(move |release| {
            let version = format!("{before}{release}{after}");
            let (platform, system, bits) = told_by(&version);
            OsVersion {
                platform,
                version,
                system,
                bits,
            }
        })
    })
    .collect()
}

/// Whether a version is one of the catalogue's, or a release that is newer than it of one of its platforms.
pub(crate) fn is_known(version: &str) -> bool {
    let of_platform = |(begins, _): &(&str, &str)| version.starts_with(begins);
    PLATFORMS.iter().any(of_platform) || catalogue().iter().any(|known| known.version == version)
}

/// The platform, the type and the width that a version tells. One that none of the catalogue's platforms has is
/// `Other`.
fn told_by(version: &str) -> (&'static str, &'static str, u32) {
    let platform = PLATFORMS
        .iter()
        .find(|(begins, _)| version.starts_with(begins))
        .map_or("Other", |(_, platform)| platform);
    let system = match platform {
        "Windows" => "Windows",
        "Other" => "Other",
        _ => "Linux",
    };
    let narrow = version.contains("32bit") || version.contains("32 bit");
    (platform, system, if narrow { 32 } else { 64 })
}

/// Sets `__os_type`, `__os_bit` and `__platform` as the version says.
pub(crate) fn derive(properties: &mut BTreeMap<String, String>) {
    let Some(version) = properties.get(OS_VERSION) else {
        return;
    };
    let (platform, system, bits) = told_by(version);
    for (name, value) in [
        ("__os_type", system.to_owned()),
        ("__os_bit", bits.to_string()),
        ("__platform", platform.to_owned()),
    ] {
        properties.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_has_each_version_once_and_those_of_a_platform_together() {
        let versions = catalogue();
        let mut texts: Vec<&str> = versions
            .iter()
            .map(|version| version.version.as_str())
            .collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), versions.len());
        for text in [
            DEFAULT_OS_VERSION,
            "Other(32 bit)",
            "Windows 10 64bit",
            "Redhat 7.6 64bit",
            "CoreOS 1010.5.0",
            "Windows Server 2012 Essentials R2 64bit",
            "Ubuntu 16.04.3 Server 64bit",
            "SUSE Linux Enterprise Server 11 SP3 32bit",
            "openEuler 20.03 64bit",
        ] {
            assert!(texts.contains(&text), "{text}");
        }
        let platforms: Vec<&str> = versions
            .chunk_by(|one, next| one.platform == next.platform)
            .map(|versions| versions[0].platform)
            .collect();
        let expected = PLATFORMS.iter().map(|(_, platform)| *platform);
        let mut expected: Vec<&str> = expected.chain(["Other"]).collect();
        assert_eq!(platforms.len(), expected.len(), "{platforms:?}");
        expected.retain(|platform| !platforms.contains(platform));
        assert_eq!(expected, Vec::<&str>::new());
    }

    #[test]
    fn the_version_tells_type_width_and_platform() {
        for (version, system, bits, platform) in [
            (
                "Windows Server 2016 Datacenter 64bit",
                "Windows",
                "64",
                "Windows",
            ),
            ("Windows 7 Professional 32bit", "Windows", "32", "Windows"),
            (
                "SUSE Linux Enterprise Server 11 SP3 32bit",
                "Linux",
                "32",
                "SUSE",
            ),
            ("Redhat 7.6 64bit", "Linux", "64", "Red Hat"),
            ("Ubuntu 24.04 server 64bit", "Linux", "64", "Ubuntu"),
            ("CoreOS 1010.5.0", "Linux", "64", "CoreOS"),
            ("Other Linux(64 bit)", "Other", "64", "Other"),
            ("Other(32 bit)", "Other", "32", "Other"),
            ("FreeBSD 14", "Other", "64", "Other"),
        ] {
            let mut properties = BTreeMap::from([(OS_VERSION.to_owned(), version.to_owned())]);
            derive(&mut properties);
            let told = ["__os_type", "__os_bit", "__platform"].map(|name| properties[name].clone());
            assert_eq!(told, [system, bits, platform], "{version}");
        }
    }
}
