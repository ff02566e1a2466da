//! The parameters of the image lists, for the API's description. The parsers are beside this: a test compares them.

/// What both APIs' lists share: conditions on the record itself, and the order.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RecordFilters {
    /// Images of this project.
    pub owner: Option<String>,
    /// accepted (default), pending, rejected or all.
    pub member_status: Option<String>,
    /// Images with this tag; may be repeated.
    pub tag: Option<String>,
    /// Images that need exactly so many GiB of disk.
    pub min_disk: Option<String>,
    /// Images that need exactly so many MiB of memory.
    pub min_ram: Option<String>,
    /// true or false.
    pub protected: Option<String>,
    /// Images of at least so many bytes.
    pub size_min: Option<String>,
    /// Images of at most so many bytes.
    pub size_max: Option<String>,
    /// operator:time, such as gte:2024-01-02T03:04:05Z; may be repeated.
    pub created_at: Option<String>,
    /// operator:time; may be repeated.
    pub updated_at: Option<String>,
    /// key:direction,...; in the place of sort_key and sort_dir.
    pub sort: Option<String>,
    /// created_at by default; may be repeated.
    pub sort_key: Option<String>,
    /// asc or desc (default); once for all keys, or once for each.
    pub sort_dir: Option<String>,
    /// The last image of the page before.
    pub marker: Option<String>,
}

/// Conditions on the attributes that OTC's images have (spec 4.1, 8.1). Any other name is that of an attribute too.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AttributeFilters {
    /// gold, private or shared.
    #[param(rename = "__imagetype")]
    pub imagetype: Option<String>,
    /// true, as every image is; no image is anything else.
    #[param(rename = "__isregistered")]
    pub isregistered: Option<String>,
    /// uds, as every image is; no image is anything else.
    #[param(rename = "__image_source_type")]
    pub image_source_type: Option<String>,
    /// true for full-ECS images, false for the others.
    #[param(rename = "__whole_image")]
    pub whole_image: Option<String>,
    /// Images that this key seals.
    #[param(rename = "__system__cmkid")]
    pub system_cmkid: Option<String>,
    /// 32 or 64.
    #[param(rename = "__os_bit")]
    pub os_bit: Option<String>,
    /// Linux, Windows or Other.
    #[param(rename = "__os_type")]
    pub os_type: Option<String>,
    /// The operating system's platform, such as Debian.
    #[param(rename = "__platform")]
    pub platform: Option<String>,
    /// true.
    #[param(rename = "__support_kvm")]
    pub support_kvm: Option<String>,
    /// true.
    #[param(rename = "__support_xen")]
    pub support_xen: Option<String>,
    /// true.
    #[param(rename = "__support_largememory")]
    pub support_largememory: Option<String>,
    /// true.
    #[param(rename = "__support_diskintensive")]
    pub support_diskintensive: Option<String>,
    /// true.
    #[param(rename = "__support_highperformance")]
    pub support_highperformance: Option<String>,
    /// M60_vGPU.
    #[param(rename = "__support_xen_gpu_type")]
    pub support_xen_gpu_type: Option<String>,
    /// M60, V100_vGPU, P2V_V100, P100 or V100.
    #[param(rename = "__support_kvm_gpu_type")]
    pub support_kvm_gpu_type: Option<String>,
    /// true.
    #[param(rename = "__support_xen_hana")]
    pub support_xen_hana: Option<String>,
    /// true.
    #[param(rename = "__support_kvm_infiniband")]
    pub support_kvm_infiniband: Option<String>,
    /// FusionCompute, Ironic, DataImage or IsoImage.
    pub virtual_env_type: Option<String>,
}

/// Conditions that the IMS API's two lists read alike, and the Image API's otherwise.
#[derive(Debug, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImsFilters {
    /// The image with this id, also a hidden one.
    pub id: Option<String>,
    /// Images of exactly this name.
    pub name: Option<String>,
    /// Images in this status.
    pub status: Option<String>,
    /// public, private, shared, community or all.
    pub visibility: Option<String>,
    /// bare, and the other containers.
    pub container_format: Option<String>,
    /// raw, qcow2, vhd and the other formats.
    pub disk_format: Option<String>,
    /// true for hidden images, false (default) for the others.
    pub os_hidden: Option<String>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::list_query::{BadParameter, Listing, Params, ims, native};

    /// The parameters of spec 8.1: on the IMS API's lists, and on the Image API's.
    const OF_BOTH: &str = "__isregistered __imagetype protected visibility owner id status name container_format \
        disk_format min_ram min_disk __os_bit __os_type __platform tag member_status __support_kvm __support_xen \
        __support_largememory __support_diskintensive __support_highperformance __support_xen_gpu_type \
        __support_kvm_gpu_type __support_xen_hana __support_kvm_infiniband created_at updated_at marker limit \
        sort_key sort_dir";
    const OF_IMS: &str = "__whole_image __system__cmkid virtual_env_type enterprise_project_id";
    /// Values of which each parameter takes one.
    const VALUES: [&str; 12] = [
        "x",
        "1",
        "true",
        "false",
        "gold",
        "public",
        "pending",
        "active",
        "asc",
        "name",
        "11111111-2222-4333-8444-555555555555",
        "2024-01-02T03:04:05Z",
    ];

    type Parse = fn(&Params) -> Result<Listing, BadParameter>;

    /// The names among a source's texts to which the parser gives a meaning that a name which it does not know lacks.
    fn taken(parse: Parse, sources: &[&'static str]) -> BTreeSet<&'static str> {
        let asked = |name: &str, value: &str| {
            let pair = (name.to_owned(), value.to_owned());
            parse(&[pair].into_iter().collect()).ok()
        };
        let plain = parse(&Params::default()).unwrap();
        let texts = sources.iter().flat_map(|source| source.split('"'));
        let names = texts.filter(|name| {
            let letter = |c: char| c.is_ascii_lowercase() || c == '_';
            !name.is_empty() && name.chars().all(letter)
        });
        let has_meaning = |name: &&str| {
            VALUES.iter().any(|value| {
                let unknown = asked("unknown", value).unwrap();
                let named = format!("{unknown:?}").replace("\"unknown\"", &format!("{name:?}"));
                asked(name, value)
                    .is_some_and(|found| found != plain && format!("{found:?}") != named)
            })
        };
        names.filter(has_meaning).collect()
    }

    fn described(path: &str) -> BTreeSet<String> {
        let document = serde_json::to_value(crate::openapi::document()).unwrap();
        let parameters = document["paths"][path]["get"]["parameters"].clone();
        let parameters = parameters.as_array().unwrap().iter();
        let of_query = parameters.filter(|parameter| parameter["in"] == "query");
        of_query
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn what_the_parsers_take_and_what_the_reference_names_is_described() {
        let shared = include_str!("../list_query.rs");
        let cases: [(&str, Parse, &'static str, Vec<&str>); 3] = [
            (
                "/v2/images",
                native::listing,
                include_str!("native.rs"),
                vec![OF_BOTH],
            ),
            (
                "/v2/cloudimages",
                ims::listing,
                include_str!("ims.rs"),
                vec![OF_BOTH, OF_IMS],
            ),
            (
                "/v1/cloudimages/tags",
                ims::listing,
                include_str!("ims.rs"),
                vec![OF_BOTH, OF_IMS],
            ),
        ];
        for (path, parse, source, named) in cases {
            let mut wanted = taken(parse, &[shared, source]);
            assert!(
                wanted.contains("sort_key") && wanted.contains("__imagetype"),
                "{wanted:?}"
            );
            wanted.extend(named.iter().flat_map(|names| names.split_whitespace()));
            let described = described(path);
            wanted.retain(|name| !described.contains(*name));
            assert_eq!(wanted, BTreeSet::new(), "{path} lacks them");
        }
    }
}
