//! The number of connections that this process can have.

use std::path::Path;

use crate::telemetry::descriptor_limit;

/// The memory of one connection in bytes, on an average over many: the buffers of TLS and HTTP, and a part of the full
/// ones (the head of an HTTP/1.1 request may have 128 KiB).
const CONNECTION_BYTES: u64 = 96 << 10;
/// The divisor for the memory that connections of clients may take.
const MEMORY_PART: u64 = 4;
/// The divisor for the descriptors that connections of clients may take. Registries, files and other listeners need
/// some, too.
const DESCRIPTOR_PART: u64 = 2;
/// The minimum number of connections, whatever the limits.
const FEWEST: u64 = 64;

/// Returns the number of connections for a listener: `wanted`, or fewer if the memory or descriptor limit of this
/// process requires it.
pub fn connections(wanted: usize) -> usize {
    within(wanted, memory_limit(), descriptor_limit())
}

fn within(wanted: usize, memory: Option<u64>, descriptors: u64) -> usize {
    let by_memory = memory.map_or(u64::MAX, |bytes| bytes / MEMORY_PART / CONNECTION_BYTES);
    let by_descriptors = descriptors / DESCRIPTOR_PART;
    wanted.min(usize::try_from(by_memory.min(by_descriptors).max(FEWEST)).unwrap_or(usize::MAX))
}

/// Returns the memory limit of this process's control group, or of one around it, in bytes.
fn memory_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limit_of(&groups, |path| std::fs::read_to_string(path).ok())
}

/// Finds the lowest memory limit. `groups` is the content of /proc/self/cgroup, with a line for each hierarchy:
/// `0::/path` for version 2, `4:memory:/path` for version 1. In a container, the path may be that of the host, while
/// the limit is in the root of the mounted hierarchy.
fn limit_of(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let limits = groups.lines().flat_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
        let (root, file) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            return Vec::new();
        };
        let folders = Path::new(path.trim_start_matches('/')).ancestors();
        folders.filter_map(|folder| read(&Path::new(root).join(folder).join(file))?.trim().parse().ok()).collect()
    });
    limits.min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_descriptors_bound_connections() {
        const MIB: u64 = 1 << 20;
        for (wanted, memory, descriptors, expected) in [
            (4096, None, u64::MAX, 4096),
            (4096, Some(512 * MIB), 1 << 20, 1365),
            (4096, Some(64 << 30), 1024, 512),
            (4096, Some(MIB), 16, 64),
            (64, Some(512 * MIB), 1024, 64),
        ] {
            assert_eq!(within(wanted, memory, descriptors), expected, "{memory:?} {descriptors}");
        }
    }

    #[test]
    fn the_smallest_memory_limit_around_the_process_holds() {
        let files = [
            ("/sys/fs/cgroup/kubepods/pod1/memory.max", "max\n"),
            ("/sys/fs/cgroup/kubepods/memory.max", "536870912\n"),
            ("/sys/fs/cgroup/memory.max", "1073741824\n"),
            ("/sys/fs/cgroup/memory/docker/memory.limit_in_bytes", "268435456\n"),
        ];
        let read = |path: &Path| {
            let found = files.iter().find(|(file, _)| Path::new(file) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        for (groups, expected) in [
            ("0::/kubepods/pod1\n", Some(536_870_912)),
            ("0::/\n", Some(1_073_741_824)),
            ("0::/of/the/host\n", Some(1_073_741_824)),
            ("5:cpu:/docker\n4:hugetlb,memory:/docker\n", Some(268_435_456)),
            ("5:cpu:/docker\n", None),
            ("", None),
            ("nonsense", None),
        ] {
            assert_eq!(limit_of(groups, read), expected, "{groups}");
        }
    }
}
