//! Which disks an import finds in an archive, and what it refuses before a disk is read.

use calotype_core::codes::ImsCode;
use calotype_core::ova::ArchiveDisk;

use crate::fuzz::disks_in;
use crate::samples::{envelope, ova, ova_header, with};

const GIB: u64 = 1 << 30;

fn refusal(bytes: &[u8]) -> Option<(Option<ImsCode>, String)> {
    let refused = disks_in(bytes).err()?;
    Some((refused.code(), refused.message().to_owned()))
}

#[test]
fn the_disks_are_found_in_the_servers_order_where_they_lie() {
    let described = envelope(&[("b.vmdk", 2 * GIB), ("a.vmdk", GIB)]);
    let archive = ova(&[
        ("box.ovf", &described),
        ("box.mf", b"SHA256"),
        ("a.vmdk", &[1; 700]),
        ("b.vmdk", &[2; 512]),
        ("note.nvram", b""),
    ]);
    let disks = disks_in(&archive).unwrap();
    let found = |disk: &ArchiveDisk| {
        let bytes = &archive[disk.bytes.start as usize..disk.bytes.end as usize];
        (disk.name.clone(), bytes.to_vec(), disk.capacity.bytes())
    };
    let found: Vec<_> = disks.iter().map(found).collect();
    let wanted = [
        ("b.vmdk".to_owned(), vec![2; 512], 2 * GIB),
        ("a.vmdk".to_owned(), vec![1; 700], GIB),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn every_hostile_archive_is_refused_with_its_reason() {
    let one = envelope(&[("a.vmdk", GIB)]);
    let described = ("box.ovf", &one[..]);
    let disk = ("a.vmdk", &[1; 700][..]);
    let whole = ova(&[described, disk]);
    let saying = |from: &str, to: &str| {
        let text = String::from_utf8(one.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        let text = text.replacen(from, to, 1).into_bytes();
        ova(&[("box.ovf", &text), disk])
    };
    let names: Vec<String> = (0..40).map(|number| format!("{number}.txt")).collect();
    let many = names.iter().map(|name| (name.as_str(), &b""[..]));
    let many: Vec<_> = [described, disk].into_iter().chain(many).collect();
    let longer = ova_header("b.vmdk", 70_000, b'0');
    let at = whole.len() - 1024;
    let link = ova_header("b.vmdk", 0, b'2');
    let path = ova_header("b/../../etc/passwd", 0, b'0');
    let cases = [
        ("nothing", Vec::new(), "ends too early"),
        ("no tar", vec![7; 5000], "does not match"),
        ("empty", ova(&[]), "empty"),
        ("no description", ova(&[disk]), "first member"),
        (
            "two descriptions",
            ova(&[described, ("b.ovf", b"")]),
            "first member",
        ),
        (
            "an empty description",
            ova(&[("box.ovf", b""), disk]),
            "empty, or longer",
        ),
        (
            "a long description",
            ova(&[("box.ovf", &vec![b' '; (1 << 20) + 1]), disk]),
            "empty, or longer",
        ),
        ("one name twice", ova(&[described, disk, disk]), "one name"),
        ("many members", ova(&many), "more than 32 members"),
        ("no end", whole[..at].to_vec(), "ends too early"),
        (
            "cut in a header",
            whole[..at - 1300].to_vec(),
            "ends too early",
        ),
        (
            "a member beyond the end",
            with(whole.clone(), &[(at, &longer)]),
            "longer than",
        ),
        (
            "a link",
            with(whole.clone(), &[(at, &link)]),
            "no plain file",
        ),
        (
            "a path",
            with(whole.clone(), &[(at, &path)]),
            "another directory",
        ),
        (
            "another file",
            saying("a.vmdk", "b.vmdk"),
            "not in the archive",
        ),
        (
            "a path in the description",
            saying("a.vmdk", "../a.vmdk"),
            "not in the archive",
        ),
        (
            "an absolute path in the description",
            saying("a.vmdk", "/etc/passwd"),
            "not in the archive",
        ),
        (
            "a place elsewhere",
            saying("a.vmdk", "http://example.test/a.vmdk"),
            "not in the archive",
        ),
        (
            "the description as a disk",
            saying("a.vmdk", "box.ovf"),
            "not in the archive",
        ),
        (
            "a lie about a size",
            saying("ovf:href", "ovf:size=\"701\" ovf:href"),
            "another size",
        ),
        (
            "a compressed file",
            saying("ovf:href", "ovf:compression=\"gzip\" ovf:href"),
            "compressed",
        ),
        (
            "a file in parts",
            saying("ovf:href", "ovf:chunkSize=\"7\" ovf:href"),
            "compressed",
        ),
        (
            "no disk",
            ova(&[("box.ovf", &envelope(&[])), disk]),
            "names no disk",
        ),
        (
            "one file for two disks",
            ova(&[
                ("box.ovf", &envelope(&[("a.vmdk", GIB), ("a.vmdk", GIB)])),
                disk,
            ]),
            "another one too",
        ),
        (
            "an empty disk",
            ova(&[described, ("a.vmdk", b"")]),
            "is empty",
        ),
    ];
    for (name, bytes, reason) in cases {
        let (code, told) = refusal(&bytes).unwrap();
        assert_eq!(code, Some(ImsCode::IMG_0057), "{name}: {told}");
        assert!(told.contains(reason), "{name}: {told}");
    }
    let five: Vec<String> = (0..5).map(|number| format!("{number}.vmdk")).collect();
    let described: Vec<_> = five.iter().map(|name| (name.as_str(), GIB)).collect();
    let described = envelope(&described);
    let members = five.iter().map(|name| (name.as_str(), &b"x"[..]));
    let members = [("box.ovf", &described[..])].into_iter().chain(members);
    let five = ova(&members.collect::<Vec<_>>());
    assert_eq!(refusal(&five).unwrap().0, Some(ImsCode::IMG_0194));
}
