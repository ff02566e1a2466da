use super::*;
use crate::codes::ImsCode;

/// A description as VMware writes them, with two disks whose order on the bus is not the one in which they are listed.
const SERVER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- made by hand -->
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1"
  xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"
  xmlns:vmw="http://www.vmware.com/schema/ovf">
  <References>
    <File ovf:href="data.vmdk" ovf:id="file1" ovf:size="70"/>
    <File ovf:href="system &amp; &#x31;.vmdk" ovf:id="file2" ovf:size="80"></File>
    <File ovf:href="note.nvram" ovf:id="file3" ovf:compression="identity"/>
  </References>
  <DiskSection>
    <Info>Virtual disks</Info>
    <Disk ovf:capacity="7" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>
    <Disk ovf:capacity="1073741825" ovf:diskId="vmdisk2" ovf:fileRef="file2"/>
  </DiskSection>
  <VirtualSystem ovf:id="vm">
    <OperatingSystemSection ovf:id="101" vmw:osType="centos7_64Guest">
      <Info>The guest</Info>
      <Description>CentOS <![CDATA[7.2]]> 64bit</Description>
    </OperatingSystemSection>
    <VirtualHardwareSection>
      <Item><rasd:InstanceID>3</rasd:InstanceID><rasd:ResourceType>6</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>1</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk1</rasd:HostResource>
        <rasd:InstanceID>9</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:AddressOnParent>0</rasd:AddressOnParent><rasd:HostResource>ovf:/disk/vmdisk2</rasd:HostResource>
        <rasd:InstanceID>10</rasd:InstanceID><rasd:Parent>3</rasd:Parent><rasd:ResourceType>17</rasd:ResourceType></Item>
      <Item><rasd:HostResource>ovf:/file/file3</rasd:HostResource><rasd:ResourceType>15</rasd:ResourceType></Item>
    </VirtualHardwareSection>
  </VirtualSystem>
</Envelope>
"#;

fn refusal(text: &str) -> String {
    let refused = Description::parse(text.as_bytes()).unwrap_err();
    assert_eq!(refused.code(), Some(ImsCode::IMG_0057), "{text}");
    refused.message().to_owned()
}

#[test]
fn the_disks_come_in_the_order_in_which_the_server_has_them() {
    let read = Description::parse(SERVER.as_bytes()).unwrap();
    let disk = |href: &str, bytes| DescribedDisk {
        href: href.to_owned(),
        capacity: ByteSize::new(bytes),
    };
    assert_eq!(
        read.disks,
        [
            disk("system & 1.vmdk", (1 << 30) + 1),
            disk("data.vmdk", 7 << 30)
        ]
    );
    let files: Vec<_> = read
        .files
        .iter()
        .map(|file| (file.size, file.packed))
        .collect();
    assert_eq!(files, [(Some(70), false), (Some(80), false), (None, false)]);
    assert_eq!(read.system.text, "CentOS 7.2 64bit");
    assert_eq!(read.system.kind, Some(OsType::Linux));
    let without_parts = SERVER.replace("Item>", "Thing>");
    let read = Description::parse(without_parts.as_bytes()).unwrap();
    assert_eq!(read.disks[0].href, "data.vmdk");
}

#[test]
fn what_is_no_description_of_one_server_with_disks_of_its_own_is_refused() {
    let with = |from: &str, to: &str| {
        assert!(SERVER.contains(from), "{from}");
        refusal(&SERVER.replacen(from, to, 1))
    };
    for (from, to) in [
        ("<References>", "<References"),
        ("</References>", "</Reference>"),
        ("</Envelope>", ""),
        ("</Envelope>", "</Envelope><Envelope/>"),
        ("ovf:id=\"file1\"", "ovf:id=\"file1\" ovf:id=\"file1\""),
        ("ovf:id=\"file1\"", "ovf:id=file1"),
    ] {
        assert_eq!(
            with(from, to),
            "The archive's description is not XML.",
            "{to}"
        );
    }
    let one = "<VirtualSystem ovf:id=\"other\"/></Envelope>";
    for (from, to, why) in [
        ("Envelope xmlns", "Envelop xmlns", "no OVF envelope"),
        ("</Envelope>", one, "several servers"),
        ("ovf:id=\"file2\"", "ovf:id=\"file1\"", "one id"),
        ("diskId=\"vmdisk2\"", "diskId=\"vmdisk1\"", "not there"),
        ("fileRef=\"file1\"", "fileRef=\"file9\"", "not there"),
        ("ovf:fileRef=\"file1\"", "", "no id or no file"),
        (
            "ovf:fileRef",
            "ovf:parentRef=\"x\" ovf:fileRef",
            "refers to another",
        ),
        ("ovf:/disk/vmdisk2", "ovf:/disk/vmdisk1", "twice"),
        ("ovf:/disk/vmdisk2", "ovf:/disk/x", "not there"),
        ("capacity=\"7\"", "capacity=\"${size}\"", "capacity"),
        ("capacity=\"7\"", "capacity=\"0\"", "capacity"),
        ("capacity=\"7\"", "capacity=\"-7\"", "capacity"),
        ("2^30", "2^63", "capacity"),
        ("2^30", "2^64", "capacity"),
        ("byte * 2^30", "sector", "capacity"),
        ("size=\"70\"", "size=\"all\"", "no number"),
        (
            "made by hand -->",
            "--><!DOCTYPE Envelope [<!ENTITY a \"b\">]>",
            "declares a type",
        ),
        ("CentOS", "&centos;", "entity"),
    ] {
        let told = with(from, to);
        assert!(told.contains(why), "{to}: {told}");
    }
    for text in [
        "",
        "x",
        "<a/>",
        "<Envelope/>",
        "<Envelope><References/></Envelope>",
    ] {
        refusal(text);
    }
    let refused = Description::parse(b"<Envelope>\xff</Envelope>").unwrap_err();
    assert_eq!(refused.code(), Some(ImsCode::IMG_0057));
}

#[test]
fn what_a_description_takes_is_bounded() {
    let deep = "<Envelope>".repeat(40);
    refusal(&deep);
    let many: String = (0..100).map(|n| format!(" a{n}=\"\"")).collect();
    refusal(&format!("<Envelope{many}/>"));
    let files: String = (0..300)
        .map(|n| format!("<File id=\"{n}\" href=\"f\"/>"))
        .collect();
    let text = format!("<Envelope><References>{files}</References></Envelope>");
    assert!(refusal(&text).contains("too many"));
}

#[test]
fn packed_files_are_seen_and_capacities_are_in_any_unit() {
    for (more, packed) in [
        ("ovf:compression=\"gzip\"", true),
        ("ovf:compression=\"\"", false),
        ("ovf:chunkSize=\"7\"", true),
        ("", false),
    ] {
        let text = SERVER.replacen("ovf:size=\"70\"", more, 1);
        let read = Description::parse(text.as_bytes()).unwrap();
        assert_eq!(read.files[0].packed, packed, "{more}");
    }
    let of = |number, units| capacity_of(number, units).map(ByteSize::bytes).ok();
    assert_eq!(of("5", None), Some(5));
    assert_eq!(of("5", Some("byte")), Some(5));
    assert_eq!(of(" 5 ", Some("byte*2^20")), Some(5 << 20));
    assert_eq!(of("5", Some("byte * 10^3")), Some(5000));
    assert_eq!(of("5", Some("byte * 4096")), Some(5 * 4096));
    assert_eq!(of("65537", Some("byte * 2^30")), None);
    assert_eq!(of("5", Some("MegaBytes")), None);
}

#[test]
fn a_system_is_known_by_its_words_and_else_by_its_number() {
    let told = |id: &str, kind: &str, text: &str| {
        let system = System {
            id: id.to_owned(),
            kind: kind.to_owned(),
            text: text.to_owned(),
        };
        system.told().kind
    };
    assert_eq!(
        told("101", "windows9Server64Guest", ""),
        Some(OsType::Windows)
    );
    assert_eq!(told("1", "", "Ubuntu_64"), Some(OsType::Linux));
    assert_eq!(told("107", "", ""), Some(OsType::Linux));
    assert_eq!(told("103", "", ""), Some(OsType::Windows));
    assert_eq!(told("1", "other", "FreeBSD"), None);
}
