use proptest::prelude::*;

use super::*;
use calotype_core::image::ImageStatus;

const A: &str = "11111111-2222-3333-4444-555555555555";
const B: &str = "66666666-7777-8888-9999-000000000000";

fn native(query: &str) -> Result<Listing, BadParameter> {
    Params::parse(Some(query)).and_then(|params| native::listing(&params))
}

fn ims(query: &str) -> Result<Listing, BadParameter> {
    Params::parse(Some(query)).and_then(|params| ims::listing(&params))
}

/// The conditions of a native query, without the one on hiding that every query has.
fn native_conditions(query: &str) -> Vec<Condition> {
    let mut conditions = native(query).unwrap().conditions;
    conditions.retain(|condition| *condition != Condition::Hidden(false));
    conditions
}

fn ims_conditions(query: &str) -> Vec<Condition> {
    let mut conditions = ims(query).unwrap().conditions;
    conditions.retain(|condition| *condition != Condition::Hidden(false));
    conditions
}

fn property(name: &str, value: &str) -> Condition {
    Condition::Property(name.to_owned(), value.to_owned())
}

fn not_property(name: &str, values: &[&str]) -> Condition {
    Condition::NotProperty(name.to_owned(), words(values))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn names_and_values_are_decoded_as_forms_are() {
    let params = Params::parse(Some("a=x+y&b%3D=%2B%20%C3%A4&&c&=d&e=%zz")).unwrap();
    let pairs: Vec<_> = params.iter().collect();
    let expected = [
        ("a", "x y"),
        ("b=", "+ ä"),
        ("c", ""),
        ("", "d"),
        ("e", "%zz"),
    ];
    assert_eq!(pairs, expected);
    assert_eq!(Params::parse(None).unwrap(), Params::default());
    assert_eq!(Params::parse(Some("")).unwrap(), Params::default());
    assert!(Params::parse(Some("a=%ff")).is_err());
    assert!(Params::parse(Some("a=%00")).is_err());
}

#[test]
fn a_query_has_a_bounded_number_of_parameters_and_list_items() {
    assert!(Params::parse(Some(&"a=b&".repeat(MAX_PARAMETERS))).is_ok());
    assert!(Params::parse(Some(&"a=b&".repeat(MAX_PARAMETERS + 1))).is_err());
    assert!(native(&format!("name=in:{}", ",".repeat(MAX_LIST_ITEMS - 1))).is_ok());
    assert!(native(&format!("name=in:{}", ",".repeat(MAX_LIST_ITEMS))).is_err());
}

#[test]
fn without_parameters_both_lists_are_newest_first_and_differ_in_their_length() {
    for (listing, limit) in [(native("").unwrap(), 25), (ims("").unwrap(), 500)] {
        assert_eq!(listing.limit, limit);
        assert_eq!(listing.order, [(SortKey::CreatedAt, Direction::Descending)]);
        assert_eq!(listing.visible, Visible::Default);
        assert_eq!(
            listing.membership,
            WantedMembership::Is(MemberStatus::Accepted)
        );
        assert_eq!(listing.conditions, [Condition::Hidden(false)]);
        assert_eq!(listing.marker, None);
    }
}

#[test]
fn a_limit_is_lowered_to_the_largest_page_and_never_negative() {
    for parse in [native, ims] {
        let limit = |query: &str| parse(query).map(|listing| listing.limit);
        assert_eq!(limit("limit=0"), Ok(0));
        assert_eq!(limit("limit=7"), Ok(7));
        assert_eq!(limit("limit=1000"), Ok(1000));
        assert_eq!(limit("limit=1001"), Ok(1000));
        assert_eq!(limit("limit=99999999999999999999999"), Ok(1000));
        for bad in ["", "-1", "x", "1.5", "0x10", "٣"] {
            assert!(limit(&format!("limit={bad}")).is_err(), "{bad}");
        }
    }
}

#[test]
fn a_marker_is_an_image_id() {
    for parse in [native, ims] {
        let marker = parse(&format!("marker={A}")).unwrap().marker;
        assert_eq!(marker, Some(A.parse().unwrap()));
        assert!(parse("marker=x").is_err());
        assert!(parse("marker=").is_err());
    }
}

#[test]
fn sort_keys_and_directions_pair_as_in_glance() {
    use Direction::{Ascending, Descending};
    let order = |query: &str| native(query).map(|listing| listing.order);
    assert_eq!(
        order("sort_key=name&sort_key=size&sort_dir=asc"),
        Ok(vec![(SortKey::Name, Ascending), (SortKey::Size, Ascending)])
    );
    assert_eq!(
        order("sort_key=name&sort_dir=asc&sort_key=size&sort_dir=desc"),
        Ok(vec![
            (SortKey::Name, Ascending),
            (SortKey::Size, Descending)
        ])
    );
    assert_eq!(
        order("sort=name:asc,status,disk_format:desc"),
        Ok(vec![
            (SortKey::Name, Ascending),
            (SortKey::Status, Descending),
            (SortKey::DiskFormat, Descending)
        ])
    );
    assert_eq!(
        order("sort_dir=asc"),
        Ok(vec![(SortKey::CreatedAt, Ascending)])
    );
    assert_eq!(
        order("sort_key=name&sort_key=name&sort_dir=asc&sort_dir=desc"),
        Ok(vec![(SortKey::Name, Ascending)])
    );
    for bad in [
        "sort_key=bogus",
        "sort_dir=up",
        "sort=name:up",
        "sort=",
        "sort=name&sort_key=name",
        "sort=name&sort_dir=asc",
        "sort_key=name&sort_dir=asc&sort_dir=desc",
        "sort_dir=asc&sort_dir=desc",
    ] {
        assert!(order(bad).is_err(), "{bad}");
    }
}

#[test]
fn lists_hold_values_between_commas_and_quotes() {
    let names = |query: &str| match native_conditions(query).as_slice() {
        [Condition::Name(names)] => names.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names("name=a"), ["a"]);
    assert_eq!(names("name=eq:a:b"), ["a:b"]);
    assert_eq!(names("name=in:a,b"), ["a", "b"]);
    assert_eq!(names("name=in:%22a,b%22,c"), ["a,b", "c"]);
    assert_eq!(names(r#"name=in:"a\"b","c""#), [r#"a"b"#, "c"]);
    assert_eq!(names("name=in:"), [""]);
    for bad in [
        "name=in:a\"b\"",
        "name=in:\"a\"b",
        "name=in:\"a",
        "name=gt:a",
        "name=neq:a",
        "status=xx:active",
    ] {
        assert!(native(bad).is_err(), "{bad}");
    }
}

#[test]
fn ids_and_statuses_that_can_not_be_match_nothing_on_the_native_list() {
    let (a, b) = (A.parse().unwrap(), B.parse().unwrap());
    assert_eq!(
        native_conditions(&format!("id=in:{A},{B},x")),
        [Condition::Id(vec![a, b])]
    );
    assert_eq!(native_conditions("id=x"), [Condition::Nothing]);
    assert_eq!(native_conditions("status=deleted"), [Condition::Nothing]);
    assert_eq!(
        native_conditions("status=in:saving,queued"),
        [Condition::Status(vec![
            ImageStatus::Saving,
            ImageStatus::Queued
        ])]
    );
    assert_eq!(native_conditions("owner=a/b"), [Condition::Nothing]);
}

#[test]
fn every_native_filter_has_its_condition() {
    let size = |bytes| ByteSize::new(bytes);
    let cases = [
        ("disk_format=raw", Condition::DiskFormat(words(&["raw"]))),
        (
            "container_format=in:bare,ovf",
            Condition::ContainerFormat(words(&["bare", "ovf"])),
        ),
        ("owner=p1", Condition::Owner("p1".parse().unwrap())),
        ("min_disk=3", Condition::MinDisk(3)),
        ("min_ram=512", Condition::MinRam(512)),
        ("min_ram=-1", Condition::Nothing),
        ("size_min=10", Condition::SizeMin(size(10))),
        ("size_max=10", Condition::SizeMax(size(10))),
        ("size_max=-1", Condition::Nothing),
        ("protected=true", Condition::Protected(true)),
        ("protected=false", Condition::Protected(false)),
        ("checksum=abc", Condition::Checksum("abc".to_owned())),
        (
            "os_hash_value=abc",
            Condition::OsHashValue("abc".to_owned()),
        ),
        ("tag=+a%3Db+", Condition::Tag("a=b".to_owned())),
        ("architecture=x86_64", property("architecture", "x86_64")),
        ("__os_type=Linux", property("__os_type", "Linux")),
        ("X=a", property("X", "a")),
    ];
    for (query, condition) in cases {
        assert_eq!(native_conditions(query), [condition], "{query}");
    }
    assert_eq!(native_conditions("size_min=-5"), []);
    assert_eq!(
        native_conditions("tag=a&tag=b"),
        [
            Condition::Tag("a".to_owned()),
            Condition::Tag("b".to_owned())
        ]
    );
    assert_eq!(
        native("os_hidden=True").unwrap().conditions,
        [Condition::Hidden(true)]
    );
}

#[test]
fn the_last_of_repeated_values_counts() {
    assert_eq!(
        native_conditions("name=a&name=b"),
        [Condition::Name(words(&["b"]))]
    );
    assert_eq!(native("limit=1&limit=2").unwrap().limit, 2);
}

#[test]
fn bad_values_are_refused_on_the_native_list() {
    for bad in [
        "visibility=secret",
        "member_status=maybe",
        "protected=yes",
        "protected=True",
        "os_hidden=2",
        "size_min=x",
        "size_max=",
        "min_disk=many",
        "created_at=gt:yesterday",
        "created_at=",
        "updated_at=in:2024-01-02T03:04:05Z",
        "changes-since=2024-01-02T03:04:05Z",
    ] {
        assert!(native(bad).is_err(), "{bad}");
    }
}

#[test]
fn visibility_and_membership_choose_among_what_is_visible() {
    for parse in [native, ims] {
        let visible = |query: &str| parse(query).unwrap().visible;
        assert_eq!(visible("visibility=all"), Visible::All);
        assert_eq!(
            visible("visibility=shared"),
            Visible::Only(Visibility::Shared)
        );
        assert_eq!(
            visible("visibility=community"),
            Visible::Only(Visibility::Community)
        );
        let membership = |query: &str| parse(query).unwrap().membership;
        assert_eq!(membership("member_status=all"), WantedMembership::Any);
        assert_eq!(
            membership("member_status=rejected"),
            WantedMembership::Is(MemberStatus::Rejected)
        );
    }
}

#[test]
fn times_compare_with_what_is_shown_in_whole_seconds() {
    use Comparison::{GreaterOrEqual, Less, NotEqual};
    let start = Timestamp::parse("2024-01-02T03:04:05Z").unwrap();
    let next = Timestamp::parse("2024-01-02T03:04:06Z").unwrap();
    let created = |comparison, instant| Condition::CreatedAt(comparison, instant);
    let cases = [
        (
            "",
            vec![created(GreaterOrEqual, start), created(Less, next)],
        ),
        (
            "eq:",
            vec![created(GreaterOrEqual, start), created(Less, next)],
        ),
        ("gt:", vec![created(GreaterOrEqual, next)]),
        ("gte:", vec![created(GreaterOrEqual, start)]),
        ("lt:", vec![created(Less, start)]),
        ("lte:", vec![created(Less, next)]),
        ("neq:", vec![created(NotEqual, start)]),
    ];
    for (operator, expected) in cases {
        for time in [
            "2024-01-02T03:04:05Z",
            "2024-01-02+03:04:05",
            "2024-01-02T04:04:05%2B01:00",
        ] {
            let query = format!("created_at={operator}{time}");
            assert_eq!(native_conditions(&query), expected, "{query}");
            assert_eq!(ims_conditions(&query), expected, "{query}");
        }
    }
}

#[test]
fn two_bounds_on_a_time_hold_both() {
    let both = "updated_at=gte:2024-01-02T00:00:00Z&updated_at=lt:2024-01-03T00:00:00Z";
    let bound =
        |comparison, text| Condition::UpdatedAt(comparison, Timestamp::parse(text).unwrap());
    assert_eq!(
        ims_conditions(both),
        [
            bound(Comparison::GreaterOrEqual, "2024-01-02T00:00:00Z"),
            bound(Comparison::Less, "2024-01-03T00:00:00Z")
        ]
    );
}

#[test]
fn a_bound_with_a_fraction_is_exact() {
    let instant = Timestamp::parse("2024-01-02T03:04:05.5Z").unwrap();
    assert_eq!(
        native_conditions("created_at=gt:2024-01-02T03:04:05.5Z"),
        [Condition::CreatedAt(Comparison::Greater, instant)]
    );
}

#[test]
fn every_ims_filter_has_its_condition() {
    let cases = [
        (
            "__imagetype=gold",
            Condition::Visibility(Visibility::Public),
        ),
        (
            "__imagetype=private",
            Condition::Visibility(Visibility::Private),
        ),
        (
            "__imagetype=shared",
            Condition::Visibility(Visibility::Shared),
        ),
        ("__isregistered=false", Condition::Nothing),
        ("__whole_image=true", property("__whole_image", "true")),
        (
            "__whole_image=False",
            not_property("__whole_image", &["true"]),
        ),
        ("__system__cmkid=k1", Condition::Key("k1".parse().unwrap())),
        ("__system__cmkid=k/1", Condition::Nothing),
        ("__image_source_type=evs", Condition::Nothing),
        ("__os_bit=64", property("__os_bit", "64")),
        (
            "__platform=Oracle+Linux",
            property("__platform", "Oracle Linux"),
        ),
        ("__support_kvm=true", property("__support_kvm", "true")),
        (
            "virtual_env_type=Ironic",
            property("virtual_env_type", "Ironic"),
        ),
        (
            "enterprise_project_id=0",
            Condition::EnterpriseProject(EnterpriseProjectId::Default),
        ),
        (
            "enterprise_project_id=66666666-7777-8888-9999-000000000000",
            Condition::EnterpriseProject(B.parse().unwrap()),
        ),
        ("name=in:a,b", Condition::Name(words(&["in:a,b"]))),
        ("name=a:b", Condition::Name(words(&["a:b"]))),
        (
            "status=active",
            Condition::Status(vec![ImageStatus::Active]),
        ),
        ("status=deleted", Condition::Nothing),
        ("status=pending_delete", Condition::Nothing),
        ("protected=True", Condition::Protected(true)),
        ("size_min=5", Condition::SizeMin(ByteSize::new(5))),
        ("size_max=5", Condition::SizeMax(ByteSize::new(5))),
        ("tag=env%3Ddev", Condition::Tag("env=dev".to_owned())),
        ("shoe_size=44", property("shoe_size", "44")),
    ];
    for (query, condition) in cases {
        assert_eq!(ims_conditions(query), [condition], "{query}");
    }
    for query in [
        "__isregistered=true",
        "__image_source_type=uds",
        "enterprise_project_id=all_granted_eps",
        "page=2",
        "flavor_id=s3.large.2",
    ] {
        assert_eq!(ims_conditions(query), [], "{query}");
    }
}

#[test]
fn an_image_that_names_no_environment_is_one_for_fusion_compute() {
    let expected = [not_property(
        "virtual_env_type",
        &["Ironic", "DataImage", "IsoImage"],
    )];
    assert_eq!(ims_conditions("virtual_env_type=FusionCompute"), expected);
}

#[test]
fn a_client_that_asks_for_one_image_by_its_id_finds_it_also_hidden() {
    let conditions = ims(&format!("id={A}")).unwrap().conditions;
    assert_eq!(conditions, [Condition::Id(vec![A.parse().unwrap()])]);
}

#[test]
fn bad_values_are_refused_on_the_ims_list() {
    for bad in [
        "id=x",
        "id=",
        "status=running",
        "owner=a/b",
        "owner=",
        "visibility=gold",
        "member_status=x",
        "__imagetype=silver",
        "__imagetype=",
        "__whole_image=maybe",
        "protected=1",
        "min_disk=x",
        "min_ram=1.5",
        "size_min=x",
        "enterprise_project_id=x",
        "created_at=after:2024-01-02T03:04:05Z",
        "updated_at=gt:2024-13-02T03:04:05Z",
        "limit=-1",
        "sort_key=__os_type",
        "sort_dir=ASC",
    ] {
        assert!(ims(bad).is_err(), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_query_makes_the_parsers_panic(query in any::<String>()) {
        let _ = native(&query);
        let _ = ims(&query);
    }

    #[test]
    fn no_value_of_a_known_parameter_makes_the_parsers_panic(
        name in prop::sample::select(vec![
            "id", "name", "status", "owner", "visibility", "member_status", "tag", "disk_format",
            "size_min", "size_max", "min_disk", "min_ram", "protected", "os_hidden", "created_at",
            "updated_at", "limit", "marker", "sort", "sort_key", "sort_dir", "__imagetype",
            "__whole_image", "enterprise_project_id", "virtual_env_type",
        ]),
        value in r#"((in|eq|gt|lte):)?[-a-z0-9:,"\\%+ä .TZ]{0,24}"#,
    ) {
        let query = format!("{name}={value}");
        let _ = native(&query);
        let _ = ims(&query);
    }
}
