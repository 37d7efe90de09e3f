//! What the guest's CPUID instruction answers: the host's processor as KVM can virtualise it,
//! with the topology of *this* machine (one package, one thread a core) and without nested
//! virtualisation unless asked for.
//!
//! Sources: Intel SDM vol. 2A "CPUID", AMD APM vol. 3 appendix E, Linux
//! `Documentation/virt/kvm/x86/cpuid.rst`.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};

const FEATURES: u32 = 0x1;
const CACHES_INTEL: u32 = 0x4;
const FEATURES_EXTENDED: u32 = 0x7;
const TOPOLOGY: u32 = 0xb;
const SGX: u32 = 0x12;
const TOPOLOGY_V2: u32 = 0x1f;
const HYPERVISOR: u32 = 0x4000_0000;
const HYPERVISOR_TIMING: u32 = 0x4000_0010;
const FEATURES_AMD: u32 = 0x8000_0001;
const SIZES_AMD: u32 = 0x8000_0008;
const SVM: u32 = 0x8000_000a;
const CACHES_AMD: u32 = 0x8000_001d;
const TOPOLOGY_AMD: u32 = 0x8000_001e;

/// KVM's emulated local APIC timer runs at 1 GHz (`APIC_BUS_CYCLE_NS` = 1).
const APIC_BUS_KHZ: u32 = 1_000_000;

const LEAF1_ECX_VMX: u32 = 1 << 5;
const LEAF1_ECX_TSC_DEADLINE: u32 = 1 << 24;
const LEAF1_ECX_HYPERVISOR: u32 = 1 << 31;
const LEAF1_EDX_HTT: u32 = 1 << 28;
const LEAF7_EBX_SGX: u32 = 1 << 2;
const LEAF7_ECX_SGX_LC: u32 = 1 << 30;
const AMD_ECX_CMP_LEGACY: u32 = 1 << 1;
const AMD_ECX_SVM: u32 = 1 << 2;

/// What shapes the answers besides the host's processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuModel {
    /// Number of vCPUs.
    pub vcpus: u8,
    /// TSC frequency, so that the guest need not calibrate.
    pub tsc_khz: Option<u32>,
    /// Offer VMX or SVM.
    pub nested: bool,
    /// KVM's local APIC has a TSC-deadline timer.
    pub tsc_deadline: bool,
}

impl CpuModel {
    /// Bits of an APIC id that tell the cores apart.
    fn core_bits(self) -> u32 {
        u8::BITS - (self.vcpus - 1).leading_zeros()
    }

    /// The answers that are the same on every vCPU, from what KVM supports on this host.
    #[must_use]
    pub fn template(self, supported: &[kvm_cpuid_entry2]) -> Vec<kvm_cpuid_entry2> {
        let highest = supported
            .iter()
            .find(|entry| entry.function == 0)
            .map_or(0, |entry| entry.eax);
        let mut entries: Vec<_> = supported
            .iter()
            .copied()
            .filter(|entry| {
                !matches!(
                    entry.function,
                    TOPOLOGY | TOPOLOGY_V2 | HYPERVISOR_TIMING | SGX
                )
            })
            .filter(|entry| self.nested || entry.function != SVM)
            .collect();
        for entry in &mut entries {
            self.adapt(entry);
        }
        // KVM lists leaf 0x1f only where the host has it; both leaves say the same.
        for leaf in [TOPOLOGY, TOPOLOGY_V2] {
            if supported.iter().any(|entry| entry.function == leaf) && highest >= leaf {
                entries.extend(self.topology(leaf));
            }
        }
        if let Some(tsc_khz) = self.tsc_khz {
            entries.push(kvm_cpuid_entry2 {
                function: HYPERVISOR_TIMING,
                eax: tsc_khz,
                ebx: APIC_BUS_KHZ,
                ..Default::default()
            });
        }
        entries
    }

    fn adapt(self, entry: &mut kvm_cpuid_entry2) {
        let last = u32::from(self.vcpus) - 1;
        let smp = self.vcpus > 1;
        match entry.function {
            FEATURES => {
                entry.ebx = entry.ebx & 0xff00 | u32::from(self.vcpus) << 16;
                entry.ecx |= LEAF1_ECX_HYPERVISOR;
                set(&mut entry.ecx, LEAF1_ECX_TSC_DEADLINE, self.tsc_deadline);
                if !self.nested {
                    entry.ecx &= !LEAF1_ECX_VMX;
                }
                set(&mut entry.edx, LEAF1_EDX_HTT, smp);
            }
            // Level in bits 7:5; 0 in bits 4:0 ends the list. L1 and L2 belong to a core, L3 to
            // all. 25:14 threads sharing - 1, 31:26 cores in the package - 1.
            CACHES_INTEL if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { last } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14 | last << 26;
            }
            CACHES_AMD if entry.eax & 0x1f != 0 => {
                let level = entry.eax >> 5 & 7;
                let sharing = if level >= 3 { last } else { 0 };
                entry.eax = entry.eax & 0x3fff | sharing << 14;
            }
            FEATURES_EXTENDED if entry.index == 0 => {
                // Enclaves would need EPC memory slots.
                entry.ebx &= !LEAF7_EBX_SGX;
                entry.ecx &= !LEAF7_ECX_SGX_LC;
            }
            FEATURES_AMD => {
                if !smp {
                    entry.ecx &= !AMD_ECX_CMP_LEGACY;
                }
                if !self.nested {
                    entry.ecx &= !AMD_ECX_SVM;
                }
            }
            // 7:0 cores - 1, 15:12 bits of the APIC id within the package. Zero on Intel.
            SIZES_AMD if entry.ecx != 0 => {
                entry.ecx = entry.ecx & !0xf0ff | self.core_bits() << 12 | last;
            }
            HYPERVISOR if self.tsc_khz.is_some() => {
                entry.eax = entry.eax.max(HYPERVISOR_TIMING);
            }
            _ => {}
        }
    }

    /// Extended topology: a thread level of one, a core level of all, the end.
    fn topology(self, leaf: u32) -> [kvm_cpuid_entry2; 3] {
        const THREAD: u32 = 1 << 8;
        const CORE: u32 = 2 << 8;
        let level = |index, eax, ebx, kind| kvm_cpuid_entry2 {
            function: leaf,
            index,
            flags: KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
            eax,
            ebx,
            ecx: kind | index,
            ..Default::default()
        };
        [
            level(0, 0, 1, THREAD),
            level(1, self.core_bits(), u32::from(self.vcpus), CORE),
            level(2, 0, 0, 0),
        ]
    }
}

/// Fills in what differs between vCPUs.
///
/// # Errors
/// When there are more entries than KVM takes.
pub fn for_vcpu(template: &[kvm_cpuid_entry2], id: u8) -> Result<CpuId, vmm_sys_util::fam::Error> {
    let apic_id = u32::from(id);
    let mut cpuid = CpuId::from_entries(template)?;
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            FEATURES => entry.ebx = entry.ebx & 0x00ff_ffff | apic_id << 24,
            TOPOLOGY | TOPOLOGY_V2 => entry.edx = apic_id,
            // Extended APIC id; core id with one thread a core; one node a package.
            TOPOLOGY_AMD => {
                entry.eax = apic_id;
                entry.ebx = apic_id;
                entry.ecx = 0;
            }
            _ => {}
        }
    }
    Ok(cpuid)
}

/// Bits of a guest-physical address on this processor (leaf 0x80000008), 36 if it does not say.
#[must_use]
pub fn physical_bits(entries: &[kvm_cpuid_entry2]) -> u32 {
    entries
        .iter()
        .find(|entry| entry.function == SIZES_AMD)
        .map_or(36, |entry| entry.eax & 0xff)
}

fn set(word: &mut u32, bit: u32, on: bool) {
    if on {
        *word |= bit;
    } else {
        *word &= !bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32, eax: u32, ecx: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 {
            function,
            index,
            eax,
            ecx,
            ..Default::default()
        }
    }

    fn host() -> Vec<kvm_cpuid_entry2> {
        vec![
            entry(0, 0, 0x1f, 0),
            entry(FEATURES, 0, 0, LEAF1_ECX_VMX | 1 << 25),
            entry(CACHES_INTEL, 0, 0x21 | 0x3f << 26, 0),
            entry(CACHES_INTEL, 1, 0x63, 0),
            entry(CACHES_INTEL, 2, 0, 0),
            entry(TOPOLOGY, 0, 1, 0),
            entry(TOPOLOGY_V2, 0, 1, 0),
            entry(HYPERVISOR, 0, 0x4000_0001, 0),
            entry(FEATURES_AMD, 0, 0, AMD_ECX_SVM | AMD_ECX_CMP_LEGACY),
            entry(SIZES_AMD, 0, 0x3028, 0x703f),
            entry(SVM, 0, 1, 0),
            entry(TOPOLOGY_AMD, 0, 99, 99),
        ]
    }

    fn model(vcpus: u8) -> CpuModel {
        CpuModel {
            vcpus,
            tsc_khz: Some(2_000_000),
            nested: false,
            tsc_deadline: true,
        }
    }

    fn get(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
        *entries
            .iter()
            .find(|e| e.function == function && e.index == index)
            .unwrap()
    }

    #[test]
    fn nested_virtualisation_is_hidden_and_other_features_stay() {
        let hidden = model(1).template(&host());
        assert_eq!(get(&hidden, FEATURES, 0).ecx & LEAF1_ECX_VMX, 0);
        assert_ne!(get(&hidden, FEATURES, 0).ecx & 1 << 25, 0, "AES stays");
        assert_eq!(get(&hidden, FEATURES_AMD, 0).ecx & AMD_ECX_SVM, 0);
        assert!(!hidden.iter().any(|e| e.function == SVM));
        let nested = CpuModel {
            nested: true,
            ..model(1)
        }
        .template(&host());
        assert_ne!(get(&nested, FEATURES, 0).ecx & LEAF1_ECX_VMX, 0);
        assert!(nested.iter().any(|e| e.function == SVM));
    }

    #[test]
    fn topology_of_one_two_three_and_thirty_two() {
        for (vcpus, bits) in [(1, 0), (2, 1), (3, 2), (8, 3), (32, 5)] {
            let entries = model(vcpus).template(&host());
            let n = u32::from(vcpus);
            for leaf in [TOPOLOGY, TOPOLOGY_V2] {
                assert_eq!(get(&entries, leaf, 0).ebx, 1);
                assert_eq!(get(&entries, leaf, 1).eax, bits);
                assert_eq!(get(&entries, leaf, 1).ebx, n);
                assert_eq!(get(&entries, leaf, 2).ecx, 2);
            }
            assert_eq!(get(&entries, FEATURES, 0).ebx >> 16, n);
            assert_eq!(get(&entries, FEATURES, 0).edx & LEAF1_EDX_HTT != 0, n > 1);
            assert_eq!(get(&entries, CACHES_INTEL, 0).eax >> 14 & 0xfff, 0);
            assert_eq!(get(&entries, CACHES_INTEL, 1).eax >> 14 & 0xfff, n - 1);
            assert_eq!(get(&entries, CACHES_INTEL, 1).eax >> 26, n - 1);
            assert_eq!(
                get(&entries, SIZES_AMD, 0).ecx & 0xf0ff,
                bits << 12 | (n - 1)
            );
        }
    }

    #[test]
    fn every_vcpu_has_its_own_id_everywhere() {
        let template = model(4).template(&host());
        let cpuid = for_vcpu(&template, 3).unwrap();
        let entries = cpuid.as_slice();
        assert_eq!(get(entries, FEATURES, 0).ebx >> 24, 3);
        assert_eq!(get(entries, TOPOLOGY, 1).edx, 3);
        assert_eq!(get(entries, TOPOLOGY_AMD, 0).eax, 3);
        assert_eq!(get(entries, TOPOLOGY_AMD, 0).ebx, 3);
    }

    #[test]
    fn timing_leaf_is_announced() {
        let entries = model(1).template(&host());
        assert_eq!(get(&entries, HYPERVISOR, 0).eax, HYPERVISOR_TIMING);
        assert_eq!(get(&entries, HYPERVISOR_TIMING, 0).eax, 2_000_000);
        assert_eq!(physical_bits(&entries), 0x28);
    }
}
