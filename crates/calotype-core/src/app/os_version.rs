//! What an operating system's version, as `__os_version` tells it, says of the system (spec 4.6).
//!
//! The catalogue's rows are matched by how their strings begin, so that a release that is newer than the catalogue
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

/// Sets `__os_type`, `__os_bit` and `__platform` as the version says. A version that none of the catalogue's
/// platforms has is `Other`.
pub(crate) fn derive(properties: &mut BTreeMap<String, String>) {
    let Some(version) = properties.get(OS_VERSION) else {
        return;
    };
    let platform = PLATFORMS
        .iter()
        .find(|(begins, _)| version.starts_with(begins))
        .map_or("Other", |(_, platform)| platform);
    let system = match platform {
        "Windows" => "Windows",
        "Other" => "Other",
        _ => "Linux",
    };
    let bits = if version.contains("32bit") || version.contains("32 bit") {
        "32"
    } else {
        "64"
    };
    for (name, value) in [
        ("__os_type", system),
        ("__os_bit", bits),
        ("__platform", platform),
    ] {
        properties.insert(name.to_owned(), value.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
