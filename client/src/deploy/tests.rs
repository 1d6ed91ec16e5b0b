//! Manifests and plans by example: what is read, what is refused and how that is said, how a plan is shown.

mod properties;

use std::collections::BTreeSet;

use fulmar_core::name::Name;

use super::check::check;
use super::manifest::{BlockWish, Manifest, Source};
use super::plan::{Plan, make};
use super::present::{Present, Unikernel};
use super::settings::{Block, Policy, Restart};
use super::show::{self, Detail, document};

const SHOP: &str = r#"
path = "shop"

[policy.":"]
unikernels = 3
memory = 128
cpus = [0, 1]
block = 10
bridges = ["service"]

[block.data]
size = 4

[unikernel.web]
image = { url = "https://127.0.0.1/web.hvt", sha256 = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff" }
networks.service = "service"
arguments = ["--port=80", "a b"]
restart = [1, 2]
links = ["db"]

[unikernel.db]
image = "db.hvt"
memory = 64
cpus = [1]
networks.net = { bridge = "service", mac = "02:00:00:00:00:01" }
blocks.storage = { device = "data", sector-size = 4096 }
restart = true
startup = 10
"#;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn faults(text: &str) -> Vec<String> {
    Manifest::parse(text).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn a_manifest_is_read() {
    let manifest = Manifest::parse(SHOP).unwrap();
    assert_eq!((manifest.path, manifest.path_is_given), (name("shop:"), true));
    assert_eq!(manifest.policies[0].path, name("shop:"));
    assert_eq!(manifest.blocks, [BlockWish { name: name("shop:data"), line: 11, size_mb: 4 }]);
    // A link is an order too.
    let names: Vec<_> = manifest.unikernels.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["shop:db", "shop:web"]);
    let [db, web] = &manifest.unikernels[..] else { panic!("{manifest:?}") };
    assert_eq!(db.settings.restart, Restart::OnFailure);
    assert_eq!(db.settings.blocks["storage"], Block { host: "data".to_owned(), sector_bytes: 4096 });
    assert_eq!(db.settings.networks["net"].mac, [2, 0, 0, 0, 0, 1]);
    assert_eq!((db.settings.memory_mb, db.settings.startup), (64, 10));
    assert_eq!(web.settings.restart, Restart::On([1, 2].into()));
    assert_eq!((web.settings.memory_mb, web.settings.startup, &web.settings.cpus), (32, 50, &[0].into()));
    assert_eq!(web.settings.networks["service"].mac, fulmar_core::mac::address(&web.name, "service"));
    assert!(matches!(&web.image, Source::Url(_, digest) if digest[..2] == [0, 0x11]));
}

#[test]
fn each_mistake_is_said_with_its_line() {
    for (text, wanted) in [
        ("path = 3", "line 1: path: is integer: write a text in quotes"),
        ("\n[unikernl.a]\n", "line 2: there is no key 'unikernl', but path, policy, block, unikernel"),
        (
            "[unikernel.a]\nimage = \"a\"\nmemroy = 3",
            "line 3: unikernel a: there is no key 'memroy', but image, networks",
        ),
        ("[unikernel.a]", "line 1: unikernel a: it needs an image"),
        ("[unikernel.a]\nimage = \"a\"\n[unikernel.A]\nimage = \"a\"", "line 3: unikernel A: line 1 has :a already"),
        ("[unikernel.a]\nimage = \"a\"\n[unikernel.a]\nimage = \"a\"", "line 3: duplicate key"),
        ("[unikernel.\"a:\"]\nimage = \"a\"", "line 1: unikernel a:: this is a path"),
        (
            "[unikernel.a]\nimage = \"a\"\nmemory = 0",
            "line 3: unikernel a: memory: is not a whole number from 1 to 4096",
        ),
        (
            "[unikernel.a]\nimage = \"a\"\nafter = [\"b\"]",
            "line 3: unikernel :a: it waits for :b, which is not in this",
        ),
        ("[unikernel.a]\nimage = \"a\"\nafter = [\"a\"]", "line 1: a circle: :a after :a: leave out one"),
        (
            "[unikernel.a]\nimage = \"a\"\nafter = [\"b\"]\n[unikernel.b]\nimage = \"b\"\nafter = [\"a\"]",
            "line 1: a circle: :a after :b after :a: leave out one",
        ),
        (
            "[unikernel.a]\nimage = \"a\"\nnetworks.n = \"br0\"\nlinks = [\"b\"]\n[unikernel.b]\nimage = \"b\"",
            "line 4: unikernel :a: it is linked with :b and they share no bridge: it has br0, :b has none",
        ),
        (
            "[unikernel.a]\nimage = \"a\"\nblocks.s = \"d\"\n[unikernel.b]\nimage = \"b\"\nblocks.s = \"d\"",
            "line 4: unikernel :b: :a has block device :d already",
        ),
        (
            "[unikernel.a]\nimage = { url = \"http://127.0.0.1/\" }",
            "line 2: unikernel a: image: a url needs the image's digest",
        ),
        ("[unikernel.a]\nimage = { digest = \"12\" }", "line 2: unikernel a: image: '12' is no SHA-256"),
        ("[unikernel.a]\nimage = { url = \"ftp://x/\", sha256 = \"\" }", "does not begin with http:// or https://"),
        ("[unikernel.a]\nimage = \"a\"\nrestart = 3", "restart: is not true, false or a list of exit codes"),
        ("[unikernel.a]\nimage = \"a\"\ncpus = [1024]", "cpus: a CPU is not a whole number from 0 to 1023"),
        ("[unikernel.a]\nimage = \"a\"\n[unikernel.a.networks]\nn = {}", "network n: it needs a bridge: write n = "),
        ("[unikernel.a]\nimage = \"a\"\nblocks.s = { device = \"d\", sector-size = 3 }", "sector size '3'"),
        ("[block.d]\n", "line 1: block d: it needs a size in MB"),
        ("[block.d]\nsize = 0", "line 2: block d: size: is not a whole number from 1"),
        ("[policy.a]\nmemory = 64", "line 1: policy a: it needs unikernels, memory and cpus"),
        (
            "[policy.\":\"]\nmemory = 64\nunikernels = 1\ncpus = [0]",
            "line 1: policy :: the root policy is what the host",
        ),
        ("[block.d]\nsize = [\n", "line 2: "),
        ("x", "line 1: "),
    ] {
        let said = faults(text);
        assert!(said.iter().any(|fault| fault.contains(wanted)), "{text}\n{said:?}");
    }
    // All of them at once, in order.
    let said = faults("[block.d]\nsize = 0\n[unikernel.a]\nmemory = 0\nx = 1");
    assert_eq!(said.len(), 3, "{said:?}");
    assert!(
        said[0].starts_with("line 2") && said[1].starts_with("line 4") && said[2].starts_with("line 5"),
        "{said:?}"
    );
}

fn present() -> Present {
    let manifest = Manifest::parse(SHOP).unwrap();
    let host =
        Policy { unikernels: 100, memory_mb: 1000, cpus: [0, 1].into(), block_mb: Some(100), bridges: BTreeSet::new() };
    let mut present = Present { bridges: Some(["service".to_owned()].into()), ..Present::default() };
    present.policies.insert(Name::ROOT, host);
    let mut settings = manifest.unikernels[0].settings.clone();
    settings.memory_mb = 32;
    settings.arguments = vec!["--old".to_owned()];
    present.unikernels.insert(name("shop:db"), Unikernel { digest: Some([1; 32]), settings });
    let settings = manifest.unikernels[1].settings.clone();
    present.unikernels.insert(name("shop:old"), Unikernel { digest: Some([2; 32]), settings: settings.clone() });
    present.unikernels.insert(name("elsewhere"), Unikernel { digest: Some([2; 32]), settings });
    present.blocks.insert(name("shop:data"), 4);
    present.blocks.insert(name("shop:spare"), 1);
    present
}

fn shown(plan: &Plan, detail: Detail) -> String {
    let mut out = Vec::new();
    show::plan(&mut out, plan, detail).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_plan_is_shown() {
    let manifest = Manifest::parse(SHOP).unwrap();
    let (present, digests) = (present(), [[1; 32], [3; 32]]);
    let plan = make(&manifest, &digests, &present, false);
    assert_eq!(
        shown(&plan, Detail::Plan),
        "set policy shop:\n\
         replace unikernel shop:db\n  memory: 32 MB -> 64 MB\n  arguments: --old -> none\n\
         create unikernel shop:web\n\
         leave unikernel shop:old: it is not in the manifest\n\
         leave block shop:spare: it is not in the manifest\n\
         3 changes, 1 as wanted already\n"
    );
    let diff = shown(&plan, Detail::Diff);
    for part in [
        "set policy shop:\n  + unikernels: 3\n  + memory: 128 MB\n  + CPUs: 0,1\n  + block: 10 MB\n  + bridges: service\n",
        "replace unikernel shop:db\n  - memory: 32 MB\n  + memory: 64 MB\n  - arguments: --old\n",
        "  + restart: on 1,2\n",
        "  + arguments: --port=80 'a b'\n",
    ] {
        assert!(diff.contains(part), "{part}\n{diff}");
    }
    let pruned = make(&manifest, &digests, &present, true);
    assert!(shown(&pruned, Detail::Plan).starts_with("destroy unikernel shop:old\nset policy"), "{pruned:?}");
    let document = document("shop.toml", &manifest.path, &plan, 1);
    assert_eq!(document["changes"][0]["done"], true);
    assert_eq!(document["changes"][1]["done"], false);
    assert_eq!(document["changes"][1]["fields"][0]["there"], "32 MB");
    assert_eq!(document["others"][1]["kind"], "block");
}

#[test]
fn what_cannot_be_is_said_before() {
    let said = |text: &str, present: &Present| {
        let manifest = Manifest::parse(text).unwrap();
        let plan = make(&manifest, &vec![[9; 32]; manifest.unikernels.len()], present, false);
        check(&manifest, present, &plan, &name("shop:")).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(said(SHOP, &present()), Vec::<String>::new());
    let beyond = said("[block.data]\nsize = 1", &present());
    assert_eq!(beyond, ["line 1: block :data: it is not below shop:, and you may change nothing else"]);
    for (from, to, wanted) in [
        ("size = 4", "size = 5", "line 11: block shop:data: it is there with 4 MB and keeps that size"),
        (
            "device = \"data\"",
            "device = \"date\"",
            "there is no block device shop:date: add it to the manifest, or take",
        ),
        ("memory = 128", "memory = 100", "line 4: the policy of shop: allows 100 MB of memory of 128 MB"),
        ("unikernels = 3", "unikernels = 2", "line 4: the policy of shop: allows 2 unikernels of 3"),
        ("block = 10", "block = 4", "line 4: the policy of shop: allows 4 MB of block storage of 5 MB"),
        ("unikernels = 3", "unikernels = 101", "the policy of shop: allows more than the one of : above it"),
        ("cpus = [1]", "cpus = [7]", "line 21: unikernel shop:db: the policy of : does not allow CPU 7, but 0,1"),
        (
            "networks.service = \"service\"",
            "networks.service = \"service\"\nnetworks.b = \"br9\"",
            "the host has no bridge br9, but service",
        ),
        ("bridges = [\"service\"]", "", "the policy of shop: does not allow bridge service, but none"),
        ("device = \"data\"", "device = \"spare\"", "shop:other has block device shop:spare: destroy it"),
    ] {
        let mut present = present();
        if from.contains("device") {
            let mut other = present.unikernels[&name("shop:db")].clone();
            other.settings.blocks.get_mut("storage").unwrap().host = "spare".to_owned();
            other.settings.memory_mb = 0;
            present.unikernels.insert(name("shop:other"), other);
        }
        let said = said(&SHOP.replacen(from, to, 1), &present);
        assert!(said.iter().any(|fault| fault.contains(wanted)), "{wanted}\n{said:?}");
    }
}
