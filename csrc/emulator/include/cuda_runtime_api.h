// Stands in for the CUDA toolkit's header where the emulator is built.
#pragma once
#include "emulator/runtime.h"
