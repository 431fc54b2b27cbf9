module sealgate.dev/benches/cluster

go 1.24
