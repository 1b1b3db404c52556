
# The links: AuroraFlow, built from its own repository.
AURORA_FLOW_DIR ?= AuroraFlow
USE_FRAMING     := 1
FIFO_WIDTH      := @beat_bytes@
ifneq ($(TARGET),hw)
$(error a ring must be linked for hardware, not for $(TARGET): the links' emulation has other ports; leave TARGET out)
endif
ifeq ($(wildcard $(AURORA_FLOW_DIR)/aurora_flow.mk),)
$(error AURORA_FLOW_DIR must be a clone of https://github.com/pc2/AuroraFlow, not $(AURORA_FLOW_DIR))
endif
# Its steps run in folders of their own, so that paths must be whole ones, here and in its own make.
override AURORA_FLOW_DIR := $(abspath $(AURORA_FLOW_DIR))
MAKEOVERRIDES := $(filter-out AURORA_FLOW_DIR=%,$(MAKEOVERRIDES))
# Links with this card's options, apart from those of other builds.
AURORA_FLOW_BUILD_DIR := $(CURDIR)/links
include $(AURORA_FLOW_DIR)/aurora_flow.mk
LINK_XOS := $(AURORA_FLOW_XOS_HW)
.DEFAULT_GOAL := all
# One make for both links, not two in one folder.
.NOTPARALLEL:
