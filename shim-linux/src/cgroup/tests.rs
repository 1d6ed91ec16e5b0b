//! A folder in the place of a hierarchy: what is written where. The kernel's part, as far as this machine's kernel plays it, is in
//! `tests/cgroup.rs`.

use std::sync::atomic::{AtomicU32, Ordering};

use fulmar_core::halves::{Tender, Texts};
use fulmar_core::policy::CpuSet;

use super::*;

/// A folder that is gone with the test.
struct Hierarchy(PathBuf);

impl Hierarchy {
    fn new(own: &str, controllers: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mount = std::env::temp_dir().join(format!("fulmar-cgroup-{}-{number}", std::process::id()));
        let mut path = mount.clone();
        fs::create_dir_all(mount.join(own)).unwrap();
        fs::write(mount.join("cgroup.controllers"), controllers).unwrap();
        for part in Path::new(own).components() {
            path.push(part);
            fs::write(path.join("cgroup.controllers"), controllers).unwrap();
        }
        Self(mount)
    }

    fn find(&self, own: &str, delegated: &str) -> Result<Cgroups, NoCgroups> {
        let delegated = self.0.join(delegated);
        Cgroups::find_in(&self.0, own, Path::new("/"), &|path| path == delegated)
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).unwrap_or_default()
    }
}

impl Drop for Hierarchy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const PLAN: LaunchPlan<'static> = LaunchPlan {
    unit: Unit(7),
    account: 1,
    tender: Tender::Spt,
    cpus: CpuSet::EMPTY,
    memory_mb: 32,
    networks: Texts::EMPTY,
    blocks: 0,
    argv: Texts::EMPTY,
    machine: None,
};

#[test]
fn a_service_moves_out_of_the_way_and_gives_each_tender_its_share() {
    let hierarchy = Hierarchy::new("system.slice/vmmd.service", "cpu memory pids\n");
    let mut cgroups = hierarchy.find("/system.slice/vmmd.service", "system.slice/vmmd.service").unwrap();
    assert!(cgroups.bound_memory() && cgroups.bound_processes());
    let at = |file: &str| hierarchy.text(&format!("system.slice/vmmd.service/{file}"));
    assert_eq!(at("vmmd/cgroup.procs"), "0", "the writer itself");
    // Of several writes a file keeps the last.
    assert_eq!(at("cgroup.subtree_control"), "+pids");
    assert_eq!(at("vmmd/cgroup.subtree_control"), "", "two names of one folder would be in each other's way");
    cgroups.enter(&PLAN, Pid::from_raw(4711)).unwrap();
    let unit = |file: &str| fs::read_to_string(cgroups.path(Unit(7)).join(file)).unwrap();
    assert_eq!(unit("cgroup.procs"), "4711");
    assert_eq!(unit("memory.max"), ((32 + TENDER_MEMORY_MB + 1 + 8) << 20).to_string());
    assert_eq!((unit("memory.swap.max").as_str(), unit("pids.max").as_str()), ("0", "32"));
}

#[test]
fn a_subgroup_of_a_service_stays_where_it_is() {
    let hierarchy = Hierarchy::new("system.slice/vmmd.service/vmmd", "pids");
    let cgroups = hierarchy.find("/system.slice/vmmd.service/vmmd", "system.slice/vmmd.service").unwrap();
    assert!(!cgroups.bound_memory() && cgroups.bound_processes());
    assert_eq!(hierarchy.text("system.slice/vmmd.service/vmmd/cgroup.procs"), "");
    assert_eq!(hierarchy.text("system.slice/vmmd.service/cgroup.subtree_control"), "+pids");
}

#[test]
fn nothing_is_touched_that_was_not_delegated() {
    let hierarchy = Hierarchy::new("user.slice/session-1.scope", "cpu memory pids");
    for own in ["/user.slice/session-1.scope", "/..", "/../other", "/user.slice"] {
        let error = hierarchy.find(own, "elsewhere").unwrap_err();
        assert!(matches!(error, NoCgroups::NotDelegated(_)), "{error}");
        assert!(error.to_string().contains("Delegate=yes"), "{error}");
    }
    assert_eq!(hierarchy.text("cgroup.subtree_control") + &hierarchy.text("user.slice/cgroup.subtree_control"), "");
}

#[test]
fn the_root_of_a_hierarchy_is_ours() {
    let hierarchy = Hierarchy::new("", "memory");
    let cgroups = hierarchy.find("/", "elsewhere").unwrap();
    assert!(cgroups.bound_memory() && !cgroups.bound_processes());
    let hierarchy = Hierarchy::new("", "hugetlb cpu");
    assert!(matches!(hierarchy.find("/", "elsewhere"), Err(NoCgroups::NoController(_))));
    assert!(matches!(hierarchy.find("/gone", "gone"), Err(NoCgroups::Refused(..))));
}

#[test]
fn want_of_memory_is_told_by_the_kernels_count() {
    let hierarchy = Hierarchy::new("", "memory");
    let mut cgroups = hierarchy.find("/", "").unwrap();
    cgroups.enter(&PLAN, Pid::from_raw(1)).unwrap();
    assert!(!cgroups.is_out_of_memory(Unit(7)));
    for (kills, wanted) in [("0", false), ("1", true), ("12", true)] {
        let events = format!("low 0\nhigh 0\nmax 88\noom 3\noom_kill {kills}\noom_group_kill 0\n");
        fs::write(cgroups.path(Unit(7)).join("memory.events"), events).unwrap();
        assert_eq!(cgroups.is_out_of_memory(Unit(7)), wanted);
    }
    assert!(!cgroups.is_out_of_memory(Unit(8)));
}

#[test]
fn the_hierarchy_is_found_among_others() {
    let text = "24 30 0:22 / /proc rw,relatime shared:5 - proc proc rw\n\
                35 30 0:30 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                36 30 0:31 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    assert_eq!(mount_of(text), Some("/sys/fs/cgroup/unified".into()));
    assert_eq!(mount_of(""), None);
}

#[test]
fn each_run_folder_has_a_name_of_its_own() {
    let folder = std::env::temp_dir().join(format!("fulmar-run-{}", std::process::id()));
    fs::create_dir_all(folder.join("a-b")).unwrap();
    fs::create_dir_all(folder.join("a/b")).unwrap();
    let names = ["a-b", "a/b", "a/../a-b"].map(|run| name_of(&folder.join(run)).unwrap());
    assert!(names[0].ends_with("a\\x2db") && names[1].ends_with("-a-b"), "{names:?}");
    assert_eq!(names[0], names[2]);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(name_of(&folder), None);
}
