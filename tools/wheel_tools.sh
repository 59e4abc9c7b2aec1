#!/bin/sh
# What a manylinux_2_28 container lacks for building fkdx: nasm, and the parts of CUDA that compile kernels.
set -eu
case $(uname -m) in x86_64) arch=x86_64 ;; *) arch=sbsa ;; esac
repository=https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$arch/cuda-rhel8.repo
dnf install -y nasm dnf-plugins-core
dnf config-manager --add-repo "$repository"
dnf install -y cuda-nvcc-13-0 cuda-cudart-devel-13-0
