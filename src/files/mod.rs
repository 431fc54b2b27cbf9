//! Files that change under a running process: policy folders, and what watches them.
